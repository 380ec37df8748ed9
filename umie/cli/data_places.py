"""`umie data regions`, `segments` and `tracks`: add proposed places to the records of a data set."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from umie.cli.console import print_line, print_note, print_notes
from umie.cli.data_images import PartOptions, build_part
from umie.cli.options import (
    A_MEDIUM,
    Format,
    FormatOptions,
    Images,
    JsonlOutput,
    Regions,
    not_none,
    num_with,
    source_of,
)
from umie.cli.progress import counting
from umie.errors import UmieError
from umie.types import check_image_policy

if TYPE_CHECKING:
    from umie.data.source import Source
    from umie.encoders.annotate import AnnotateStats
    from umie.records import Record
    from umie.registry import Registry

Input = Annotated[Path, typer.Option("--input", "-i", help="A split file of the data set.")]
ProposerOptions = Annotated[
    list[str] | None,
    typer.Option(
        "--option",
        "--proposer-option",
        metavar="NAME=VALUE",
        help="Option of the proposer, e.g. top=10; repeatable. `umie list NAME` shows them.",
    ),
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
    typer.Option("--replace", help="Remove the record's own places first, up to those that its annotation refers to."),
]
NOUNS: dict[str, str] = {medium: noun.split()[-1] for medium, noun in A_MEDIUM.items()}
MANY = 0.05  # share of boxes without area that suggests another form of boxes
Drawn = Callable[["Iterator[Record]", "AnnotateStats"], "Iterator[Record]"]


def regions(
    input_file: Input,
    output: JsonlOutput,
    proposer: Annotated[
        str, typer.Option("--proposer", "-p", help="faster_rcnn, file, grid, grounding, or a plugin's name.")
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
    """Add proposed regions to the records of a file, and write the records as JSONL.

    A record keeps its own regions, and they come first, because arguments refer to regions by number; proposals follow,
    best first. The options are those of the proposer's Config: top, nms, min_score for all; weights, model, min_size
    for faster_rcnn; checkpoint, phrases for grounding; scales for grid; path, format, boxes for file.

    The first image that cannot be read stops the command with exit code 2, and nothing is written. With
    --missing-images text_only its record is written unchanged, with skip it is left out; each such image is named on
    standard error. An annotation that cannot be read (proposer file) is treated the same way and counted separately.

    Example:
        umie data regions -i train.jsonl -o new.jsonl -p grid --images images
        umie data regions -i train.jsonl -o new.jsonl -p faster_rcnn --draw look
        umie data regions -i train.jsonl -o new.jsonl -p file --option path=xml
    """
    check_image_policy(missing_images)
    from umie.encoders.regions import registry
    from umie.encoders.regions.base import NO_AREA
    from umie.encoders.regions.draw import draw as drawn

    def drawing(records: Iterator[Record], stats: AnnotateStats) -> Iterator[Record]:
        return records if draw is None else drawn(records, draw, draw_number, stats)

    _check_output(input_file, output)
    source = source_of(input_file, format_name, images, regions, format_option)
    part, stats = _propose(registry, proposer, option, source, output, missing_images, replace, drawing)
    if part.counts[NO_AREA] > MANY * part.num_found:
        print_note("warning: if boxes are x, y, width and height, set --option boxes=xywh (JSON files)", "yellow")
    _print_unreadable("image", stats)
    if draw is not None:
        print_line(f"Drawn: {stats.drawn:,} images in {draw}")
    print_line(f"Written: {output}")


def segments(
    input_file: Input,
    output: JsonlOutput,
    proposer: Annotated[str, typer.Option("--proposer", "-p", help="energy, file, or a plugin's name.")] = "energy",
    option: ProposerOptions = None,
    format_name: Format = "jsonl",
    media: Media = None,
    format_option: FormatOptions = None,
    missing_media: MissingMedia = "error",
    replace: Replace = False,
) -> None:
    """Add proposed segments of their sounds to the records of a file, and write the records as JSONL.

    A record keeps its own segments, and they come first, because its annotation refers to segments by number; proposals
    follow, ascending in time. Records without a sound are written unchanged.

    The first sound that cannot be read stops the command with exit code 2, and nothing is written. With
    --missing-media text_only its record is written unchanged, with skip it is left out; each such sound is named on
    standard error. An annotation that cannot be read (proposer file) is treated the same way and counted separately.

    Example:
        umie data segments -i train.jsonl -o new.jsonl
        umie data segments -i train.jsonl -o new.jsonl --option onset=9 --option nested=true
        umie data segments -i train.jsonl -o new.jsonl -p file --option path=events.tsv
    """
    from umie.encoders.segments import registry

    _check_output(input_file, output)
    source = source_of(input_file, format_name, media, None, format_option)
    _, stats = _propose(registry, proposer, option, source, output, missing_media, replace)
    _print_unreadable("audio", stats)
    print_line(f"Written: {output}")


def tracks(
    input_file: Input,
    output: JsonlOutput,
    proposer: Annotated[
        str, typer.Option("--proposer", "-p", help="blobs, boxes_iou, file, or a plugin's name.")
    ] = "blobs",
    option: ProposerOptions = None,
    format_name: Format = "jsonl",
    media: Media = None,
    format_option: FormatOptions = None,
    missing_media: MissingMedia = "error",
    replace: Replace = False,
) -> None:
    """Add proposed tracks through their videos to the records of a file, and write the records as JSONL.

    A record keeps its own tracks, and they come first, because its annotation refers to tracks by number; proposals
    follow, ascending in time. Records without a video are written unchanged. Videos that cannot be read are treated as
    sounds are; see `umie data segments --help`.

    Example:
        umie data tracks -i train.jsonl -o new.jsonl
        umie data tracks -i train.jsonl -o new.jsonl -p boxes_iou --option 'proposer={name: grid, scales: [4]}'
        umie data tracks -i train.jsonl -o new.jsonl -p file --option path=mot --option frame_rate=30
    """
    from umie.encoders.tracks import registry

    _check_output(input_file, output)
    source = source_of(input_file, format_name, media, None, format_option)
    _, stats = _propose(registry, proposer, option, source, output, missing_media, replace)
    _print_unreadable("video", stats)
    print_line(f"Written: {output}")


def _check_output(input_file: Path, output: Path) -> None:
    if output.exists() and input_file.exists() and output.samefile(input_file):
        raise UmieError(f"{output}: is the input file: choose another --output")


def _propose(
    registry: Registry[Any],
    proposer: str,
    option: list[str] | None,
    source: Source,
    output: Path,
    policy: str,
    replace: bool,
    drawn: Drawn = lambda records, stats: records,
) -> tuple[Any, AnnotateStats]:
    """Write the records with proposed places, print the counts, and return the proposer and its counts."""
    check_image_policy(policy)
    from umie.encoders.annotate import AnnotateStats, annotate
    from umie.records import write_jsonl
    from umie.records.notes import collected_notes
    from umie.records.places import PLACES

    source.check()
    part = build_part(registry, proposer, option)
    medium = part.medium
    kind, plural = PLACES[medium], f"{NOUNS[medium]}s"
    stats = AnnotateStats()
    with (
        collected_notes() as notes,
        counting(f"{kind} of {source.path.name}", num_with(source, medium), unit=plural) as advance,
    ):
        records = annotate(
            source.records(),
            part,
            stats,
            missing_images=policy,
            replaces=replace,
            on_unreadable=lambda what, error: print_note(
                f"{NOUNS.get(what, what)} cannot be read: {' '.join(str(error).split())}"
            ),
            on_medium=advance,
        )
        message = f"{source.path}: no record has {A_MEDIUM[medium]} that can be read: nothing is written"
        write_jsonl(output, not_none(drawn(records, stats), message))
    counts = {"records": stats.records, plural: stats.media, "proposals": stats.proposals}
    if stats.cut:
        counts[f"{kind} cut"] = stats.cut
    found = [f"{name}: {number:,}" for name, number in counts.items()]
    places = "boxes" if medium == "image" else kind
    clipped = {f"{places} clipped to the {NOUNS[medium]}": part.num_clipped} if part.num_clipped else {}
    for name, number in sorted({**part.counts, **clipped}.items()):
        share = f" of {part.num_found:,} ({number / part.num_found:.1%})" if name.startswith(f"{places} ") else ""
        found.append(f"{name}: {number:,}{share}")
    print_line("; ".join(found))
    print_notes(notes)
    return part, stats


def _print_unreadable(medium: str, stats: AnnotateStats) -> None:
    for kind in (medium, "annotation"):
        unreadable, left_out = stats.unreadable[kind], stats.left_out[kind]
        if unreadable or kind == medium:
            more = f", their records left out: {left_out:,}" if left_out else ""
            print_line(f"{NOUNS.get(kind, kind)}s that cannot be read: {unreadable:,}{more}")
