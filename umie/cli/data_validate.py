"""`umie data validate`: everything that is wrong with a file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from umie.cli.console import out
from umie.cli.options import Format, Images, MappingFile, NoImages, Regions, counting

if TYPE_CHECKING:
    from umie.audit.checks import Finding


def validate(
    file: Annotated[Path, typer.Argument(help="The file to check.")],
    format_name: Format = "jsonl",
    images: Images = None,
    regions: Regions = None,
    mapping: MappingFile = None,
    no_images: NoImages = False,
    limit: Annotated[int, typer.Option(min=0, help="List so many findings at most, and count all; 0 lists all.")] = 0,
    warnings: Annotated[
        int, typer.Option(min=0, help="List so many warnings at most, and count all; 0 lists all.")
    ] = 20,
    no_warnings: Annotated[bool, typer.Option("--no-warnings", help="Count warnings, and list errors only.")] = False,
) -> None:
    """List everything that is wrong with a file: every error of every line, not just the first.

    An error makes a record unsound: a line that cannot be read, a span outside the text, a box outside the image,
    a region that is not there, a label outside the record's own schema, a repeated id, an image that is not there
    or lies outside its folder. A warning makes it doubtful: white space at the end of a span, repeated annotation,
    a relation of a span to itself, annotation for a task that the record does not name. A file without records is
    an error.

    Exit code: 0 sound, perhaps with warnings; 2 errors.

    Example:
        umie data validate tw17/train.jsonl --images images --limit 50
        umie data validate twitter2017/train.txt --format twitter --no-images
    """
    from umie.audit.validation import validate as check
    from umie.data.source import Source

    listed = warned = 0

    def report(place: str, finding: Finding) -> None:
        nonlocal listed, warned
        if not finding.is_error and (no_warnings or (warnings and warned >= warnings)):
            return
        if limit and listed >= limit:
            return
        listed += 1
        warned += not finding.is_error
        severity = "error" if finding.is_error else "warning"
        where = f"{place}: " if place else ""
        message = " ".join(f"{where}{finding.message}".split())
        style = "red" if finding.is_error else "yellow"
        out.print(f"{severity}: {message}", style=style, markup=False, highlight=False, soft_wrap=True)

    with counting(f"checking {file.name}") as count:
        source = Source(file, format_name, images, regions, mapping)
        result = check(source, report, images=not no_images, progress=count)
    unlisted = result.errors + (0 if no_warnings else result.warnings) - listed
    more = f" ({unlisted:,} more are not listed; --limit 0 and --warnings 0 list all)" if unlisted else ""
    out.print(
        f"{file}: {result.records:,} records read, {result.errors:,} errors, {result.warnings:,} warnings{more}",
        highlight=False,
        markup=False,
        soft_wrap=True,
    )
    if result.errors:
        raise typer.Exit(2)
