"""Options, progress bars and output shared by the commands."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table

from umie.cli.console import err, out
from umie.errors import UmieError

if TYPE_CHECKING:
    from umie.data.source import Source
    from umie.records import Record

QUIET = 30.0  # seconds between lines of progress if standard error is not a terminal
STEP = 500  # records between updates of the counter

Format = Annotated[
    str,
    typer.Option("--format", "-f", help="Format of the file: jsonl, twitter, mnre, m2e2, ...; see docs/data.md."),
]
Images = Annotated[Path | None, typer.Option(help="Directory of the images; for JSONL, by default that of the file.")]
Regions = Annotated[
    Path | None, typer.Option(help="Annotation of regions: a directory of VOC files for twitter and gmner.")
]
FormatOptions = Annotated[
    list[str] | None,
    typer.Option(
        "--format-option",
        metavar="NAME=VALUE",
        help="Option of the format, e.g. mapping=FILE for swig; repeatable.",
    ),
]
NoImages = Annotated[bool, typer.Option("--no-images", help="Do not check that image files exist.")]
Plugins = Annotated[
    list[Path] | None,
    typer.Option("--plugin", help="A Python file that registers parts, e.g. a fusion. Repeatable."),
]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", help="Override a config value, e.g. training.max_steps=100. Repeatable."),
]
JsonFlag = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]


def check_data_root(path: Path) -> Path:
    """Return the folder that relative paths of ``data`` start from; raise UmieError if it does not exist."""
    if not path.is_dir():
        raise UmieError(f"--data-root {path}: not a directory")
    return path


@contextmanager
def counting(what: str) -> Iterator[Callable[[], None]]:
    """Show a counter of records on standard error if it is a terminal; yield the function that counts one record."""
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        TextColumn("{task.completed:,.0f} records"),
        TextColumn("{task.fields[rate]}"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=err, transient=True, disable=not err.is_terminal) as progress:
        bar = progress.add_task(what, total=None, rate="")
        number = 0

        def count() -> None:
            nonlocal number
            number += 1
            if not number % STEP:
                elapsed = progress.tasks[0].elapsed or 0
                progress.update(bar, completed=number, rate=f"{number / elapsed:,.0f} per second" if elapsed else "")

        yield count


@contextmanager
def counting_to(total: int, what: str) -> Iterator[Callable[[], None]]:
    """Show a progress bar with an estimated end on standard error; yield the function that counts one item."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=err, transient=True, disable=not err.is_terminal) as progress:
        bar = progress.add_task(what, total=total, rate="")

        reported = time.monotonic()

        def count() -> None:
            nonlocal reported
            done, elapsed = progress.tasks[0].completed + 1, progress.tasks[0].elapsed
            rate = f"{done / elapsed:,.1f} per second" if elapsed else ""
            progress.update(bar, completed=done, rate=rate)
            if not err.is_terminal and time.monotonic() - reported > QUIET:
                reported = time.monotonic()
                tell(f"{what}: {done:,.0f} of {total:,}, {rate}")

        yield count


def source_of(
    path: Path,
    format_name: str,
    images: Path | None = None,
    regions: Path | None = None,
    format_options: Iterable[str] | None = None,
) -> Source:
    """Return the data file that the options describe."""
    from umie.cli.part_options import part_options
    from umie.data.source import Source

    return Source(path, format_name, images, regions, part_options(format_options or (), "--format-option"))


def num_with_image(source: Source) -> int:
    """Return the number of records with an image; raise UmieError if there are none."""
    total = sum(record.image is not None for record in source.records())
    if not total:
        raise UmieError(f"{source.path}: no record has an image; formats other than JSONL require --images")
    return total


def not_none(records: Iterable[Record], message: str) -> Iterator[Record]:
    """Yield the records; raise UmieError with the message if there are none, so that no empty file is written."""
    found = False
    for record in records:
        found = True
        yield record
    if not found:
        raise UmieError(message)


def tell(message: str, style: str | None = None) -> None:
    """Print a line to standard error without markup and wrapping."""
    err.print(message, style=style, markup=False, highlight=False, soft_wrap=True)


def show(table: Table) -> None:
    """Print a table at the width of the terminal, or, without a terminal, at the width that the table needs."""
    if out.is_terminal:
        out.print(table)
        return
    needed = Measurement.get(out, out.options.update(max_width=10_000), table).maximum
    Console(file=out.file, width=needed).print(table)
