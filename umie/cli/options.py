"""Options and output shared by the commands."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
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

Format = Annotated[
    str,
    typer.Option("--format", "-f", help="Format of the file: jsonl, twitter, mnre, m2e2, ...; see docs/data.md."),
]
Images = Annotated[
    Path | None, typer.Option(help="Directory of the images; for JSONL, defaults to the directory of the file.")
]
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
DataRoot = Annotated[
    Path | None,
    typer.Option("--data-root", help="Directory for relative paths under `data`; by default that of the file."),
]
JsonFlag = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]


def check_data_root(path: Path) -> Path:
    """Return the directory that paths under ``data`` are relative to; raise UmieError if it does not exist."""
    if not path.is_dir():
        raise UmieError(f"--data-root {path}: not a directory")
    return path


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
