"""`umie view`: records or extractions with their media, as an HTML page."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from umie.cli.console import print_line, print_note
from umie.cli.options import Format, FormatOptions, Images, Regions, source_of
from umie.cli.progress import counting
from umie.errors import UmieError, shown
from umie.files import check_distinct

if TYPE_CHECKING:
    from umie.data.source import Source
    from umie.records import Record


def view(
    file: Annotated[Path, typer.Argument(help="Annotated records, predictions, or the output of umie extract.")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The page. (default: FILE with the ending .html)")
    ] = None,
    drawings: Annotated[
        Path | None, typer.Option(help="Also draw each record as a PNG in this directory, with the number in its name.")
    ] = None,
    number: Annotated[int, typer.Option("--number", "-n", min=1, help="Number of records.")] = 20,
    seed: Annotated[int, typer.Option(help="Random seed of the sample.")] = 0,
    ids: Annotated[list[str] | None, typer.Option("--id", help="Show the record with this id; repeatable.")] = None,
    format_name: Format = "jsonl",
    images: Images = None,
    regions: Regions = None,
    format_option: FormatOptions = None,
) -> None:
    """Write an HTML page that shows records with their media: a random sample, or those with some ids.

    Each item has a color: its words in the text, its boxes on images and on the frames of videos, its segments in the
    waveform of a sound, which play on a click. Point at one of them to see what belongs to it. The page contains the
    media, scaled down, and needs no other file.

    Example:
        umie view extracted.jsonl --images photos -o page.html
        umie view test.txt --format mnre --images images -n 50
        umie view extracted.jsonl --id 17 --drawings figures
    """
    from umie.data.source import draw_some
    from umie.reports.record_figure import draw_record
    from umie.reports.record_page import write_page
    from umie.reports.style import check_figures

    output = file.with_suffix(".html") if output is None else output
    check_distinct([file, output])
    if output.suffix.lower() not in (".html", ".htm"):
        raise UmieError(f"--output {output}: a page ends in .html")
    if drawings is not None:
        check_figures("--drawings")
    source = source_of(file, format_name, images, regions, format_option)
    total = 0
    with counting(f"reading {file.name}") as count:

        def read() -> None:
            nonlocal total
            total += 1
            count()

        if ids:
            drawn = [one for one in _numbered(source) if one[1].id in ids]
            if missing := set(ids) - {str(record.id) for _, record in drawn}:
                raise UmieError(f"{file}: no record has the id {shown(min(missing))}")
        else:
            drawn = draw_some(_numbered(source), number, seed, progress=read)
    if not drawn:
        raise UmieError(f"{file}: contains no records")

    def named() -> Iterator[tuple[str, Record]]:
        with counting("drawing") as count:
            for place, record in drawn:
                count()
                if drawings is not None:
                    draw_record(record, drawings / f"{place}.png")
                yield source.place(place), record

    sample = f" of {total:,} records, a random sample" if total > len(drawn) else " records"
    unreadable = write_page(named(), output, f"{file.name}: {len(drawn):,}{sample}")
    if unreadable:
        files = "1 file cannot" if unreadable == 1 else f"{unreadable:,} files cannot"
        advice = "; --images names the directory of images, sounds and videos" if images is None else ""
        print_note(f"note: {files} be read; the page says why{advice}", "yellow")
    if total > len(drawn):
        print_line(f"{len(drawn):,}{sample}; --number {total} shows all")
    print_line(f"Written: {output} ({output.stat().st_size / 1e6:.1f} MB)")


def _numbered(source: Source) -> Iterator[tuple[int, Record]]:
    """Yield the records with their numbers; those of JSONL may be extractions with details."""
    from umie.extraction.source import read_details

    source.check()
    if source.format == "jsonl" and source.regions is None and not source.options:
        yield from read_details(source.path, source.images)
    else:
        yield from source.numbered()
