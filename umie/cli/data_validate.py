"""`umie data validate`: all errors and warnings of a file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from umie.cli.console import out
from umie.cli.options import Format, FormatOptions, Images, NoImages, Plugins, Regions, source_of
from umie.cli.progress import counting

if TYPE_CHECKING:
    from umie.audit.checks import Finding


def validate(
    file: Annotated[Path, typer.Argument(help="The file to check.")],
    format_name: Format = "jsonl",
    images: Images = None,
    regions: Regions = None,
    format_option: FormatOptions = None,
    no_images: NoImages = False,
    limit: Annotated[int, typer.Option(min=0, help="Maximum number of listed findings; 0 lists all.")] = 0,
    warnings: Annotated[int, typer.Option(min=0, help="Maximum number of listed warnings; 0 lists all.")] = 20,
    no_warnings: Annotated[bool, typer.Option("--no-warnings", help="List only errors.")] = False,
    plugins: Plugins = None,
) -> None:
    """List all errors and warnings of a file.

    Errors are: a line that cannot be read, a span outside the text, a box outside the image, a missing region, a label
    outside the record's schema, a repeated id, an image that is missing or outside its directory, and a file without
    records. Warnings are: whitespace around a span, repeated annotation, a relation of a span to itself, and annotation
    for a task that the record does not list. All findings are counted, even if they are not listed.

    Exit code: 0 no errors, 2 errors.

    Example:
        umie data validate train.jsonl --images images --limit 50
        umie data validate twitter2017/train.txt --format twitter --no-images
    """
    from umie.audit.validation import validate as check
    from umie.registry import load_plugins

    load_plugins(plugins or ())
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

    source = source_of(file, format_name, images, regions, format_option)
    with counting(f"checking {file.name}") as count:
        result = check(source, report, images=not no_images, progress=count)
    unlisted = result.errors + (0 if no_warnings else result.warnings) - listed
    more = f" ({unlisted:,} not listed; use --limit 0 --warnings 0 to list all)" if unlisted else ""
    out.print(
        f"{file}: {result.records:,} records read, {result.errors:,} errors, {result.warnings:,} warnings{more}",
        highlight=False,
        markup=False,
        soft_wrap=True,
    )
    if result.errors:
        raise typer.Exit(2)
