"""Options shared by the commands, and what they describe."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from umie.errors import UmieError

if TYPE_CHECKING:
    from umie.data.source import Source
    from umie.records import Medium, Record

Format = Annotated[
    str, typer.Option("--format", "-f", help="Format of the file: jsonl, twitter, mnre, m2e2, ...; see docs/data.md.")
]
Images = Annotated[
    Path | None, typer.Option(help="Directory of the media; for JSONL, defaults to the directory of the file.")
]
Regions = Annotated[
    Path | None, typer.Option(help="Annotation of regions: a directory of VOC files for twitter and gmner.")
]
FormatOptions = Annotated[
    list[str] | None,
    typer.Option(metavar="NAME=VALUE", help="Option of the format, e.g. mapping=FILE for swig; repeatable."),
]
NoImages = Annotated[bool, typer.Option("--no-images", help="Do not open or look for media.")]
NO_RELATION_HELP = (
    "Treat pairs with this relation label as pairs without a relation, as those with none, NA and the like; without "
    "this option, Other is treated so too. Repeatable."
)
NoRelation = Annotated[
    list[str] | None,
    typer.Option(
        "--no-relation",
        metavar="NAME",
        help=NO_RELATION_HELP,
    ),
]
Plugins = Annotated[
    list[Path] | None, typer.Option("--plugin", help="A Python file that registers parts, e.g. a fusion. Repeatable.")
]
Settings = Annotated[
    list[str] | None, typer.Option("--set", help="Override a config value, e.g. training.max_steps=100. Repeatable.")
]
DataRoot = Annotated[
    Path | None,
    typer.Option("--data-root", help="Directory for relative paths under `data`; by default that of the file."),
]
JsonFlag = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
JsonlOutput = Annotated[Path, typer.Option("--output", "-o", help="The JSONL file to write.")]
Threshold = Annotated[
    list[str] | None,
    typer.Option(
        help="Lowest probability of an item: a number, or TASK=NUMBER. Items below it are left out. Repeatable."
    ),
]
Device = Annotated[str | None, typer.Option(help="cpu, cuda or cuda:1; by default a GPU if there is one.")]


def data_root_of(given: Path | None, config_file: Path) -> Path:
    """Return the directory that paths under ``data`` are relative to; raise UmieError if it does not exist."""
    folder = config_file.parent if given is None else given
    if not folder.is_dir():
        raise UmieError(f"--data-root {folder}: not a directory")
    return folder


def text_of(argument: str) -> str:
    """Return a text from the command line, which Python reads as ASCII in some locales (``LC_ALL=C``), as UTF-8."""
    try:
        return os.fsencode(argument).decode("utf-8")
    except UnicodeError:  # it has characters, but no UTF-8; or it was read as UTF-8
        return argument


def check_figure(path: Path | None) -> None:
    """Raise UmieError unless the suffix of ``--figure``, if it is given, is that of a figure that can be drawn."""
    from umie.reports.style import FORMATS, check_figures

    if path is None:
        return
    if path.suffix.lower() not in FORMATS:
        raise UmieError(f"--figure {path}: use a name that ends in {', '.join(FORMATS)}")
    check_figures("--figure")


def source_of(
    path: Path,
    format_name: str,
    images: Path | None = None,
    regions: Path | None = None,
    format_options: Iterable[str] | None = None,
) -> Source:
    """Return the data file that the options describe."""
    from umie.data.source import Source

    return Source(path, format_name, images, regions, part_options(format_options or (), "--format-option"))


def part_options(given: Iterable[str], flag: str = "--option") -> dict[str, Any]:
    """Return the names and values of the ``NAME=VALUE`` strings of an option, with the values in YAML 1.2."""
    from umie.yaml_files import parse_yaml

    options: dict[str, Any] = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise UmieError(f"{flag} {text!r}: expected NAME=VALUE, e.g. mode=align")
        if name in options:
            raise UmieError(f"{flag} {name} is repeated: use it once")
        try:
            options[name] = parse_yaml(value)
        except UmieError as error:
            raise UmieError(f"{flag} {text!r}: {value!r} is not valid YAML: put it in quotes") from error
    return options


def num_with(source: Source, medium: Medium) -> int:
    """Return the number of images, sounds or videos of the records; raise UmieError if there are none."""
    from umie.records.places import A_MEDIUM

    total = sum(len(record.of(medium)) for record in source.records())
    if not total and medium == "image":
        raise UmieError(f"{source.path}: no record has an image; formats other than JSONL require --images")
    if not total:
        raise UmieError(f"{source.path}: no record has {A_MEDIUM[medium]} (field {medium})")
    return total


def not_none(records: Iterable[Record], message: str) -> Iterator[Record]:
    """Yield the records; raise UmieError with the message if there are none, so that no empty file is written."""
    found = False
    for record in records:
        found = True
        yield record
    if not found:
        raise UmieError(message)


def threshold_of(given: Sequence[str]) -> float | dict[str, float] | None:
    """Return a threshold of all tasks, or those of some, or None without any."""
    found: dict[str, float] = {}
    for text in given:
        task, equals, value = text.rpartition("=")
        if task in found:
            raise UmieError(f"--threshold {text}: there is another one for it: use one")
        try:
            found[task] = float(value)
        except ValueError as error:
            raise UmieError(f"--threshold {text}: use a number, such as 0.7, or mner=0.7") from error
        if not equals and len(given) > 1:
            raise UmieError(f"--threshold {text}: name the task of each, such as mner={text}")
    return found.get("", found) if given else None
