"""`umie data regions`, `segments` and `tracks`: add proposed places to the records of a data set."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from umie.cli.console import print_line, print_note, print_notes
from umie.cli.data_images import PartOptions, build_part
from umie.cli.options import (
    Format,
    FormatOptions,
    Images,
    Regions,
    not_none,
    num_with,
    source_of,
)
from umie.cli.progress import counting
from umie.errors import UmieError, one_line
from umie.files import is_same_file
from umie.types import check_image_policy

if TYPE_CHECKING:
    from umie.data.source import Source
    from umie.encoders.annotate import AnnotateStats
    from umie.records import Medium, Record
    from umie.registry import Registry

Input = Annotated[
    Path, typer.Option("--input", "-i", help="A split file of the data set, or a directory of JSONL splits.")
]
Output = Annotated[
    Path, typer.Option("--output", "-o", help="The JSONL file to write; for a directory of splits, a directory.")
]
Media = Annotated[
    Path | None,
    typer.Option("--media", "--images", help="Directory of the media; for JSONL, defaults to that of the file."),
]
MissingMedia = Annotated[
    str,
    typer.Option(
        "--missing-media",
        "--missing-images",
        help="For a file that cannot be read: error (stop), text_only or skip; see above.",
    ),
]
Replace = Annotated[
    bool,
    typer.Option("--replace", help="Replace annotated places by proposals; scores still compare with the annotation."),
]
MANY = 0.05  # share of boxes without area that suggests another form of boxes
Drawn = Callable[["Iterator[Record]", "AnnotateStats"], "Iterator[Record]"]

NEEDS_LABELS = {  # what is missing if a grounder that compares labels finds nothing
    "words": "; words needs segments with labels: umie data speak --labels, or umie data segments --proposer words",
    "labels": "; labels needs regions with labels, as detectors with classes write them: umie data regions",
}


def regions(
    input_file: Input,
    output: Output,
    proposer: Annotated[
        str, typer.Option("--proposer", "-p", help="blobs, faster_rcnn, file, grid, grounding, or a plugin's name.")
    ],
    option: PartOptions = None,
    format_name: Format = "jsonl",
    images: Images = None,
    regions: Regions = None,
    format_option: FormatOptions = None,
    missing_images: Annotated[
        str, typer.Option(help="For an image that cannot be read: error (stop), text_only or skip; see above.")
    ] = "error",
    replace: Replace = False,
    draw: Annotated[Path | None, typer.Option(help="Directory for images with their regions drawn.")] = None,
    draw_number: Annotated[int, typer.Option(min=1, help="Number of images that --draw writes.")] = 20,
) -> None:
    """Add proposed regions to the records of a data set, and write the records as JSONL.

    A record keeps its own regions, and they come first, because its annotation refers to regions by number; proposals
    follow, best first. With --replace, a record has only proposals. Its annotation then refers to those that overlap
    the annotated regions by IoU >= 0.5, without items that no proposal shows; `gold` has the annotation as it was,
    and scores compare with it.

    The options are those of the proposer's Config: top, nms, min_score for all; weights, model, min_size for
    faster_rcnn; checkpoint, phrases for grounding; scales for grid; threshold for blobs; path, format, boxes for file.

    The first image that cannot be read stops the command with exit code 2, and nothing is written. With
    --missing-images text_only its record is written without proposals, with skip it is left out; each such image is
    named on standard error. An annotation that cannot be read (proposer file) is treated the same way and counted
    separately.

    Example:
        umie data regions -i train.jsonl -o new.jsonl -p grid --images images
        umie data regions -i train.jsonl -o new.jsonl -p faster_rcnn --draw look
        umie data regions -i train.jsonl -o new.jsonl -p file --option path=xml
        umie data regions -i media -o proposed -p blobs --replace
    """
    from umie.encoders.regions import registry
    from umie.encoders.regions.base import NO_AREA
    from umie.encoders.regions.draw import draw as drawn

    def drawing(records: Iterator[Record], stats: AnnotateStats) -> Iterator[Record]:
        return records if draw is None else drawn(records, draw, draw_number, stats)

    files = _files(input_file, output)
    sources = [source_of(path, format_name, images, regions, format_option) for path in files]
    part, stats = _propose(registry, proposer, option, sources, files, missing_images, replace, drawing)
    if part.counts[NO_AREA] > MANY * part.num_found:
        print_note("warning: if boxes are x, y, width and height, set --option boxes=xywh (JSON files)", "yellow")
    _print_written("image", stats, output, [f"Drawn: {stats.drawn:,} images in {draw}"] if draw else ())


def segments(
    input_file: Input,
    output: Output,
    proposer: Annotated[
        str, typer.Option("--proposer", "-p", help="energy, file, silero, words, or a plugin's name.")
    ] = "energy",
    option: PartOptions = None,
    format_name: Format = "jsonl",
    media: Media = None,
    format_option: FormatOptions = None,
    missing_media: MissingMedia = "error",
    replace: Replace = False,
) -> None:
    """Add proposed segments of their sounds to the records of a data set, and write the records as JSONL.

    A record keeps its own segments, and they come first; proposals follow, ascending in time. --replace is as in `umie
    data regions`. Records without a sound are written unchanged.

    The first sound that cannot be read stops the command with exit code 2, and nothing is written. With
    --missing-media text_only its record is written without proposals, with skip it is left out; each such sound is
    named on standard error. An annotation that cannot be read (proposers file and words) is treated the same way and
    counted separately.

    Example:
        umie data segments -i train.jsonl -o new.jsonl
        umie data segments -i media -o proposed --replace --option onset=9
        umie data segments -i a.jsonl -o b.jsonl -p words --option path=aligned
    """
    from umie.encoders.segments import registry

    files = _files(input_file, output)
    sources = [source_of(path, format_name, media, None, format_option) for path in files]
    _, stats = _propose(registry, proposer, option, sources, files, missing_media, replace)
    _print_written("audio", stats, output)


def tracks(
    input_file: Input,
    output: Output,
    proposer: Annotated[
        str, typer.Option("--proposer", "-p", help="blobs, boxes_iou, file, or a plugin's name.")
    ] = "blobs",
    option: PartOptions = None,
    format_name: Format = "jsonl",
    media: Media = None,
    format_option: FormatOptions = None,
    missing_media: MissingMedia = "error",
    replace: Replace = False,
) -> None:
    """Add proposed tracks through their videos to the records of a data set, and write the records as JSONL.

    A record keeps its own tracks, and they come first; proposals follow, ascending in time. --replace is as in `umie
    data regions`. Records without a video are written unchanged. Videos that cannot be read are treated as sounds are;
    see `umie data segments --help`.

    Example:
        umie data tracks -i train.jsonl -o new.jsonl
        umie data tracks -i media -o proposed --replace --option max_gap=3
        umie data tracks -i a.jsonl -o b.jsonl -p file --option path=mot
    """
    from umie.encoders.tracks import registry

    files = _files(input_file, output)
    sources = [source_of(path, format_name, media, None, format_option) for path in files]
    _, stats = _propose(registry, proposer, option, sources, files, missing_media, replace)
    _print_written("video", stats, output)


def ground(
    input_file: Input,
    output: Output,
    grounder: Annotated[str, typer.Option("--grounder", "-g", help="words, ctc, grounding, sam3, ...; see umie list.")],
    option: PartOptions = None,
    format_name: Format = "jsonl",
    media: Media = None,
    format_option: FormatOptions = None,
    missing_media: MissingMedia = "error",
) -> None:
    """Find the places in a medium that show the items of records, such as the predictions of any system.

    A grounder looks for the words of entities, of heads and tails of relations, and of arguments. The places that it
    finds replace those that the items had in the medium; the record's own places stay, and new ones follow. Items
    without words, and triggers of events, stay as they are. So a system that only reads can be scored with places, next
    to one that points: umie evaluate --predictions grounded.jsonl --gold test.jsonl

    The options are those of the grounder's Config: top and min_score for all; checkpoint and device for models, such as
    grounding and sam3, which search an image, ctc, which aligns the letters of a phrase with speech, and whisper, which
    recognizes speech. words and labels find segments and regions by their labels, see umie data segments --proposer
    words and umie data regions. sam2 looks for no words: it turns the boxes that items already have into masks.

    Media that cannot be read are treated as in umie data segments; the items of their records stay as they are.

    Example:
        umie data ground -i p.jsonl -o a.jsonl -g words --media media
        umie data ground -i p.jsonl -o a.jsonl -g ctc --option checkpoint=wav2vec2
    """
    from umie.grounders import registry

    files = _files(input_file, output)
    sources = [source_of(path, format_name, media, None, format_option) for path in files]
    part, stats = _propose(registry, grounder, option, sources, files, missing_media, replace=False)
    if part.counts["phrases"] and part.counts["phrases"] == part.counts["phrases without a place"]:
        hint = NEEDS_LABELS.get(grounder, "")
        print_note(f"warning: nothing was found for any phrase{hint}", "yellow")
    _print_written(part.medium, stats, output)


def _files(given: Path, output: Path) -> dict[Path, Path]:
    """Return the output file of each input file: itself, or the splits in a directory."""
    files = {given: output}
    if given.is_dir():
        files = {path: output / path.name for path in sorted(given.glob("*.jsonl"))}
        if not files:
            raise UmieError(f"{given}: has no JSONL files: use the file of a split, or a directory with some")
    for path, target in files.items():
        if is_same_file(target, path):
            raise UmieError(f"{target}: is the input file: choose another --output")
    return files


def _propose(
    registry: Registry[Any],
    proposer: str,
    option: list[str] | None,
    sources: Sequence[Source],
    files: dict[Path, Path],
    policy: str,
    replace: bool,
    drawn: Drawn = lambda records, stats: records,
) -> tuple[Any, AnnotateStats]:
    """Write the records with proposed places, print the counts, and return the proposer and its counts."""
    check_image_policy(policy)
    from umie.encoders.annotate import AnnotateStats, annotate
    from umie.records import write_jsonl
    from umie.records.notes import collected_notes
    from umie.records.places import A_MEDIUM, PLACES, PLURALS

    for source in sources:
        source.check()
    part = build_part(registry, proposer, option)
    medium = part.medium
    kind, plural, noun = PLACES[medium], PLURALS[medium], PLURALS[medium][:-1]
    stats = AnnotateStats()
    with collected_notes() as notes:
        for source in sources:
            with counting(f"{kind} of {source.path.name}", num_with(source, medium), unit=plural) as advance:
                records = annotate(
                    source.records(),
                    part,
                    stats,
                    missing_images=policy,
                    replaces=replace,
                    on_unreadable=lambda what, error: print_note(
                        f"{noun if what == medium else what} cannot be read: {one_line(error)}"
                    ),
                    on_medium=advance,
                )
                message = f"{source.path}: no record has {A_MEDIUM[medium]} that can be read: nothing is written"
                write_jsonl(files[source.path], not_none(drawn(records, stats), message))
    counts = {"records": stats.records, plural: stats.media}
    if stats.proposals or not part.counts["phrases"]:  # grounders make none
        counts["proposals"] = stats.proposals
    if stats.cut:
        counts[f"{kind} cut"] = stats.cut
    found = [f"{name}: {number:,}" for name, number in counts.items()]
    if stats.replaced:
        share = stats.found / stats.replaced
        found.append(f"annotated {kind} found (IoU >= 0.5): {stats.found:,} of {stats.replaced:,} ({share:.1%})")
    places = "boxes" if medium == "image" else kind
    clipped = {f"{places} clipped to the {noun}": part.num_clipped} if part.num_clipped else {}
    for name, number in sorted({**part.counts, **clipped}.items()):
        percent = f" of {part.num_found:,} ({number / part.num_found:.1%})" if name.startswith(f"{places} ") else ""
        found.append(f"{name}: {number:,}{percent}")
    print_line("; ".join(found))
    print_notes(notes)
    return part, stats


def _print_written(medium: Medium, stats: AnnotateStats, output: Path, more: Sequence[str] = ()) -> None:
    from umie.records.places import PLURALS

    for kind, plural in ((medium, PLURALS[medium]), ("annotation", "annotations")):
        unreadable, left_out = stats.unreadable[kind], stats.left_out[kind]
        if unreadable or kind == medium:
            lost = f", their records left out: {left_out:,}" if left_out else ""
            print_line(f"{plural} that cannot be read: {unreadable:,}{lost}")
    for line in (*more, f"Written: {output}"):
        print_line(line)
