"""`umie example`: list the example files that come with umie, or write some to a directory."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Column, Table

import umie
from umie.cli.console import print_line, show
from umie.errors import UmieError, check_keys
from umie.files import atomic_write

_PACKAGE = Path(umie.__file__).parent
# an installed package has the examples inside; in a checkout they are next to the package
_EXAMPLES = next(
    (folder for folder in (_PACKAGE / "examples", _PACKAGE.parent / "examples") if folder.is_dir()), _PACKAGE
)
_ABOUT = {".jsonl": "records", ".gz": "finished cells of a grid, for umie grid merge"}
_SCHEMAS = re.compile(r"(?<=\$schema=)(\.\./)+umie/experiments/schemas/")


def example(
    names: Annotated[list[str] | None, typer.Argument(help="The files to write, e.g. embedded.yaml.")] = None,
    every: Annotated[bool, typer.Option("--all", help="Write all of them, in their folders.")] = False,
    output: Annotated[Path, typer.Option("--output", "-o", help="The directory to write to.")] = Path(),
) -> None:
    """List the example files that come with umie, or write some of them to a directory.

    For example:

        umie example
        umie example embedded.yaml && umie ablate embedded.yaml
        umie example own_fusion.yaml own_fusion.py --output study
        umie example --all --output examples
    """
    files = {
        file.relative_to(_EXAMPLES).as_posix(): file
        for file in sorted(_EXAMPLES.rglob("*"))
        if file.suffix in (".yaml", ".py", ".jsonl", ".gz")
    }
    check_keys("example", names or (), files)
    if every and names:
        raise UmieError("--all writes all examples: leave the names out")
    names = list(files) if every else names or []
    for name in names:
        if (output / name).exists():
            raise UmieError(f"{output / name} exists: remove it, or write to another directory with --output")
    for name in names:
        content = files[name].read_bytes()
        if files[name].suffix != ".gz":
            content = _SCHEMAS.sub(f"{_PACKAGE}/experiments/schemas/", content.decode()).encode()
        with atomic_write(output / name, "wb") as stream:
            stream.write(content)
        print_line(f"wrote {output / name}")
    if not names:
        table = Table(Column("file", no_wrap=True), "description")
        for name, file in files.items():
            if file.suffix in _ABOUT:
                table.add_row(name, _ABOUT[file.suffix])
                continue
            comment = re.split(r"\n(?=# yaml-|[^#])", file.read_text(encoding="utf-8"))[0]
            summary = re.split(r"\. |: umie ", " ".join(line.strip('#" ') for line in comment.splitlines()))[0]
            table.add_row(name, escape(summary.rstrip(".:")))
        show(table)
