"""`umie data stats`: counts, labels, lengths and images of files."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from umie.cli.console import out
from umie.cli.options import (
    Format,
    FormatOptions,
    Images,
    JsonFlag,
    NoImages,
    Plugins,
    Regions,
    show,
    source_of,
)
from umie.cli.progress import counting
from umie.errors import UmieError
from umie.files import check_distinct

if TYPE_CHECKING:
    from umie.audit.statistics import Statistics


def stats(
    files: Annotated[list[Path], typer.Argument(help="The files, one column each.")],
    format_name: Format = "jsonl",
    images: Images = None,
    regions: Regions = None,
    format_option: FormatOptions = None,
    no_images: NoImages = False,
    as_json: JsonFlag = False,
    figure: Annotated[Path | None, typer.Option(help="Draw a figure: PNG, PDF or SVG.")] = None,
    plugins: Plugins = None,
) -> None:
    """Count records, labels, lengths and images.

    Each file is read once, in constant memory.

    Example:
        umie data stats train.jsonl dev.jsonl test.jsonl --figure stats.png
        umie data stats mnre/train.txt --format mnre --json > mnre.json
    """
    from umie.audit.statistics import gather
    from umie.registry import load_plugins

    load_plugins(plugins or ())
    if figure is not None and figure.suffix not in (".png", ".pdf", ".svg"):
        raise UmieError(f"--figure {figure}: use a name that ends in .png, .pdf or .svg")
    check_distinct(files)
    splits: dict[str, Statistics] = {}
    for name, file in zip(_names(files), files, strict=True):
        source = source_of(file, format_name, images, regions, format_option)
        with counting(f"counting {file.name}") as count:
            splits[name] = gather(source.records(), images=not no_images, progress=count)
    summaries = {name: statistics.summary() for name, statistics in splits.items()}
    if as_json:
        typer.echo(json.dumps(summaries, ensure_ascii=False, indent=2))
    else:
        show(_table(summaries))
    if figure is not None:
        from umie.reports.data_figure import write_figure

        write_figure(figure, splits)
        if not as_json:
            out.print(f"Written: {figure}", highlight=False, markup=False, soft_wrap=True)


def _names(files: list[Path]) -> list[str]:
    """Return the names of the files: their stems, or their paths if stems repeat."""
    stems = [file.stem for file in files]
    return stems if len(set(stems)) == len(stems) else [str(file) for file in files]


def _table(summaries: Mapping[str, Mapping[str, Any]]) -> Table:
    table = Table("", *map(escape, summaries), box=None, header_style="bold")
    for column in table.columns[1:]:
        column.justify = "right"
    table.columns[0].no_wrap = True
    table.caption = "* mean (median, 95th percentile, maximum)"
    table.caption_justify = "left"

    def row(title: str, *values: str) -> None:
        table.add_row(title, *values)

    def number_row(title: str, *path: str) -> None:
        values = [_value(summary, path) for summary in summaries.values()]
        if any(value is not None for value in values):
            row(title, *map(_number, values))

    number_row("records", "records")
    for name in _keys(summaries, "items"):
        number_row(name, "items", name)
    for task in _keys(summaries, "labels"):
        row(f"[bold]{escape(task.upper())}")
        used = [_value(summary, ("labels", task)) or {} for summary in summaries.values()]
        labels = _keys(summaries, "labels", task)
        for label in sorted(labels, key=lambda label: -sum(counts.get(label, 0) for counts in used)):
            row(f"  {escape(label)}", *(_with_share(counts.get(label, 0), sum(counts.values())) for counts in used))
    row("[bold]lengths*")
    for name in _keys(summaries, "lengths"):
        found = [_value(summary, ("lengths", name)) for summary in summaries.values()]
        if not any(length and length["max"] for length in found):
            continue
        row(
            f"  {name}",
            *("-" if length is None else f"{length['mean']:.1f} ({length['p50']}, {length['p95']}, {length['max']})"
              for length in found),
        )  # fmt: skip
    row("[bold]spans")
    number_row("  spans", "spans", "total")
    row("  multi-word", *(_percent(summary["spans"]["multi_word_share"]) for summary in summaries.values()))
    row("[bold]images")
    row(
        "  named",
        *(_with_share(summary["images"]["named"], summary["records"]) for summary in summaries.values()),
    )
    if any(summary["images"]["checked"] and summary["images"]["named"] for summary in summaries.values()):
        row(
            "  missing",
            *(_with_share(summary["images"]["missing"], summary["images"]["named"]) for summary in summaries.values()),
        )
    return table


def _keys(summaries: Mapping[str, Mapping[str, Any]], *path: str) -> list[str]:
    found: dict[str, None] = {}
    for summary in summaries.values():
        found.update(dict.fromkeys(_value(summary, path) or {}))
    return list(found)


def _value(summary: Mapping[str, Any], path: tuple[str, ...]) -> Any:
    value: Any = summary
    for key in path:
        value = value.get(key) if value is not None else None
    return value


def _number(value: int | None) -> str:
    return "-" if value is None else f"{value:,}"


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.1f} %"


def _with_share(part: int, whole: int) -> str:
    return f"{part:,} ({_percent(part / whole)})" if whole else f"{part:,}"
