"""`umie data speak` and `pan`: annotated texts as speech, annotated images as clips."""

from __future__ import annotations

import random
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from umie.cli.console import print_line, print_note, print_notes
from umie.cli.options import Format, FormatOptions, Images, Regions, not_none, num_with, source_of
from umie.cli.progress import counting
from umie.errors import UmieError
from umie.files import is_same_file

if TYPE_CHECKING:
    from umie.records import Medium, Record

MediaFolder = Annotated[
    Path, typer.Option("--output", "-o", help="Directory for INPUT.jsonl and, in INPUT/, its new media.")
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace an earlier INPUT.jsonl and INPUT/.")]
Seed = Annotated[int, typer.Option(help="Random seed.")]


def speak(
    input_file: Annotated[Path, typer.Argument(help="The annotated texts.")],
    output: MediaFolder,
    format_name: Format = "jsonl",
    images: Images = None,
    regions: Regions = None,
    format_option: FormatOptions = None,
    voice: Annotated[str, typer.Option(help="Language or voice of espeak-ng, e.g. en-us, en-gb, de, cmn.")] = "en-us",
    rate: Annotated[int, typer.Option(help="Words per minute, 80 to 450.")] = 175,
    group: Annotated[int, typer.Option(min=1, help="Words of a segment that is no mention.")] = 2,
    drop_text: Annotated[bool, typer.Option("--drop-text", help="Leave the text out: only the sound has it.")] = False,
    shuffle_segments: Annotated[
        bool, typer.Option("--shuffle-segments", help="Put the segments of each record into random order.")
    ] = False,
    labels: Annotated[
        bool, typer.Option("--labels", help="Label each segment with what it says, as a recognizer would.")
    ] = False,
    seed: Seed = 0,
    overwrite: Overwrite = False,
) -> None:
    """Turn annotated texts into speech, with a segment for each mention.

    Each annotated mention is a segment of the sound, from its first to its last word, without the silence around it;
    the other words are segments of up to --group words in a row. Images and videos of the records are copied to the
    output, because the media of a record are in one directory. With --drop-text, records have no text, and the answer
    is the place. Records of whose text nothing is said (such as only punctuation) are left out and listed. After an
    error, nothing is written.

    Requires espeak-ng, which is not installed with umie: pip install espeakng-loader.

    Example:
        umie data speak twitter2017/train.txt --format twitter --output spoken
        umie data speak train.jsonl --output spoken --voice en-gb --drop-text --shuffle-segments
    """
    from umie.data.speaking import speak_records
    from umie.media.speech import Speaker
    from umie.records.notes import collected_notes

    file = _file(input_file, output, overwrite)
    source = source_of(input_file, format_name, images, regions, format_option)
    with collected_notes() as notes, Speaker(voice, rate) as speaker, _all_or_nothing(file) as written:
        records = speak_records(
            source.named(),
            speaker,
            output,
            file.stem,
            group=group,
            keep_text=not drop_text,
            shuffle=random.Random(seed) if shuffle_segments else None,
            labels=labels,
            on_left_out=lambda message: print_note(f"left out: {' '.join(message.split())}"),
            written=written,
        )
        _write(file, records, "audio", f"{input_file}: espeak-ng says nothing of its texts: use another --voice")
    print_notes(notes)


def pan(
    input_file: Annotated[Path, typer.Argument(help="Records with images.")],
    output: MediaFolder,
    format_name: Format = "jsonl",
    images: Images = None,
    regions: Regions = None,
    format_option: FormatOptions = None,
    size: Annotated[int, typer.Option(min=1, help="Pixels of the longer side of a frame, at most.")] = 224,
    frames: Annotated[int, typer.Option(min=2, help="Frames of a clip, at 8 per second.")] = 8,
    shuffle_regions: Annotated[
        bool, typer.Option("--shuffle-regions", help="Put the regions of each record into random order before.")
    ] = False,
    seed: Seed = 0,
    overwrite: Overwrite = False,
) -> None:
    """Turn images with regions into clips of a moving camera, in which the regions are tracks.

    The camera moves from the whole image to a random part of it, or from a part to the whole. The boxes of the tracks
    follow from its path; a region that is out of view has none in that frame. What refers to a region refers to its
    track. Clips are animated PNG. Records without an image stay as they are; sounds are copied to the output. After an
    error, nothing is written.

    Example:
        umie data pan train.jsonl --output panned --frames 12
        umie data pan gmner/txt/dev.txt --format gmner --images images --regions gmner/xml --output panned
    """
    from umie.data.panning import pan_records

    file = _file(input_file, output, overwrite)
    source = source_of(input_file, format_name, images, regions, format_option)
    num_with(source, "image")
    with _all_or_nothing(file) as written:
        records = pan_records(
            source.named(),
            output,
            file.stem,
            size=size,
            num_frames=frames,
            shuffle=shuffle_regions,
            seed=seed,
            written=written,
        )
        _write(file, records, "video", f"{input_file}: has no records")


def muie(
    recipe: Annotated[Path, typer.Argument(help="The recipe, such as examples/reamo/muie.yaml.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="A new directory, with one for each cell.")],
    json_flag: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Build the benchmark of REAMO from public sets: 15 cells of tasks and combinations of media, with places.

    The paper promised its benchmark and did not publish it; this is its recipe. Each cell draws records from a set that
    the recipe names: texts are spoken (with espeak-ng), so that each mention has its segment, stills become clips, and
    what a combination does not have is left out. In a share of the records with text and speech, one mention is silent.
    Cells without a set are listed with the reason. muie.json has numbers and a checksum of each cell.

    Example:
        umie data muie muie.yaml --output muie
        umie evaluate --model best --data muie/T+I_Twt17/records.jsonl --output report
    """
    from rich.table import Table

    from umie.cli.console import print_json, show
    from umie.data.muie import CELLS, MANIFEST, BuiltCell, build_muie, read_recipe
    from umie.records.notes import collected_notes

    read = read_recipe(recipe)
    built: list[BuiltCell] = []
    with collected_notes() as notes, counting("building cells", len(CELLS), unit="cells") as count:

        def note_cell(cell: BuiltCell) -> None:
            built.append(cell)
            count()

        build_muie(read, output, on_cell=note_cell, note=lambda line: print_note(" ".join(line.split())))
    print_notes(notes)
    if json_flag:
        print_json([one.to_json() for one in built])
        return
    table = Table("cell", "tasks", "records", "places", "one silent", "checksum")
    for one in built:
        places = ", ".join(f"{number} {medium}" for medium, number in one.groundings.items())
        facts = (
            [str(one.records), places, str(one.unaligned), one.checksum[:12]]
            if one.records
            else ["", one.reason, "", ""]
        )
        table.add_row(one.cell.name, ", ".join(one.cell.tasks), *facts)
    show(table)
    print_line(f"{sum(bool(one.records) for one in built)} of {len(built)} cells; written: {output / MANIFEST}")
    print_line("places: those that the annotation names; one silent: records whose speech leaves a mention out")


def _file(input_file: Path, output: Path, overwrite: bool) -> Path:
    """Return the JSONL file of the new records; raise UmieError if it is the input, or must not be replaced."""
    file = output / f"{input_file.stem}.jsonl"
    if is_same_file(file, input_file):
        raise UmieError(f"{file}: is the input; choose another --output")
    for path in (file, file.with_suffix("")):
        if path.exists() and not overwrite:
            raise UmieError(f"{path}: exists: use another --output, or --overwrite to replace it")
    return file


@contextmanager
def _all_or_nothing(file: Path) -> Iterator[list[Path]]:
    """Yield a list for the media that are written; after an error they are removed, and earlier ones are there again.

    The media of a JSONL file are in the folder of the same name. Others next to it may be copies that it shares.
    """
    output, folder = file.parent, file.with_suffix("")
    parents = {path for path in (output, *output.parents) if not path.exists()}
    written: list[Path] = []
    earlier = None
    if folder.exists():
        earlier = Path(tempfile.mkdtemp(dir=output, prefix=".", suffix=".old")) / folder.name
        folder.rename(earlier)
    try:
        yield written
    except BaseException:
        for path in written:
            path.unlink(missing_ok=True)
        emptied = {folder, *parents, *(one for path in written for one in path.parents if output in one.parents)}
        for path in sorted(emptied, key=lambda one: len(one.parts), reverse=True):
            with suppress(OSError):  # it is not empty, or there is none
                path.rmdir()
        if earlier is not None:
            earlier.rename(folder)
        raise
    finally:
        if earlier is not None:
            shutil.rmtree(earlier.parent, ignore_errors=True)


def _write(file: Path, records: Iterable[Record], medium: Medium, none: str) -> None:
    """Write records with a new medium, and print how many; raise UmieError with the message if there are ``none``."""
    from umie.records import write_jsonl
    from umie.records.places import PLACES

    places = num_records = 0

    def counted() -> Iterator[Record]:
        nonlocal places, num_records
        for record in records:
            num_records, places = num_records + 1, places + len(record.places(medium))
            count()
            yield record

    with counting(f"writing {file.name}") as count:
        write_jsonl(file, not_none(counted(), none))
    print_line(f"{num_records:,} records, {places:,} {PLACES[medium]} in {file}")
