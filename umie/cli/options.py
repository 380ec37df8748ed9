"""What the `umie data` commands share: options, the progress bar, and how a source is made of them."""

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

QUIET = 30.0  # seconds between two lines of progress where there is no terminal for a bar
STEP = 500  # records between two updates of the bar

Format = Annotated[
    str,
    typer.Option("--format", "-f", help="What the file is: jsonl, twitter, mnre, m2e2 and so on; see docs/data.md."),
]
Images = Annotated[Path | None, typer.Option(help="Folder of the images. Without it only JSONL names images.")]
Regions = Annotated[
    Path | None, typer.Option(help="What annotates regions: a folder of VOC files for twitter and gmner.")
]
MappingFile = Annotated[
    Path | None, typer.Option(help="For swig: what maps verbs to events; by default ace_sr_mapping.txt beside it.")
]
NoImages = Annotated[bool, typer.Option("--no-images", help="Do not seek the files of images.")]
Plugins = Annotated[
    list[Path] | None,
    typer.Option("--plugin", help="A Python file that registers tasks or other parts. Repeatable."),
]
JsonFlag = Annotated[bool, typer.Option("--json", help="Print JSON in place of a table.")]


@contextmanager
def counting(what: str) -> Iterator[Callable[[], None]]:
    """Show on standard error, where it is a terminal, how many records went by; gives what counts one."""
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
                progress.update(bar, completed=number, rate=f"{number / elapsed:,.0f} a second" if elapsed else "")

        yield count


@contextmanager
def counting_to(total: int, what: str) -> Iterator[Callable[[], None]]:
    """Show on standard error, where it is a terminal, how far long work is and when it will end; gives what counts."""
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

        told = time.monotonic()

        def count() -> None:
            nonlocal told
            done, elapsed = progress.tasks[0].completed + 1, progress.tasks[0].elapsed
            rate = f"{done / elapsed:,.1f} a second" if elapsed else ""
            progress.update(bar, completed=done, rate=rate)
            if not err.is_terminal and time.monotonic() - told > QUIET:
                told = time.monotonic()
                tell(f"{what}: {done:,.0f} of {total:,}, {rate}")

        yield count


def num_with_image(source: Source) -> int:
    """Return the number of records with an image; raise UmieError if there is none."""
    total = sum(record.image is not None for record in source.records())
    if not total:
        raise UmieError(
            f"{source.path}: no record names an image; formats other than JSONL need --images, the images' folder"
        )
    return total


def not_none(records: Iterable[Record], message: str) -> Iterator[Record]:
    """Yield the records; raise UmieError with the message if there is none, so that no empty file is written."""
    found = False
    for record in records:
        found = True
        yield record
    if not found:
        raise UmieError(message)


def tell(message: str, style: str | None = None) -> None:
    """Print a line on standard error as it is: no markup, no wrapping."""
    err.print(message, style=style, markup=False, highlight=False, soft_wrap=True)


def show(table: Table) -> None:
    """Print a table as wide as a terminal is, or, where there is none, as wide as the table needs."""
    if out.is_terminal:
        out.print(table)
        return
    needed = Measurement.get(out, out.options.update(max_width=10_000), table).maximum
    Console(file=out.file, width=needed).print(table)
