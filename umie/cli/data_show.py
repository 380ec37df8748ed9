"""`umie data stats` and `sample`: counts of files, and random records with their annotation marked."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from umie.cli.console import number_table, out, print_json, print_line, show
from umie.cli.options import (
    Format,
    FormatOptions,
    Images,
    JsonFlag,
    NoImages,
    Plugins,
    Regions,
    check_figure,
    source_of,
)
from umie.cli.progress import counting
from umie.errors import UmieError
from umie.files import check_distinct

if TYPE_CHECKING:
    from umie.audit.statistics import Statistics
    from umie.records import Places, Record, Span

_COLORS = ("cyan", "green", "magenta", "yellow", "blue", "red")


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
    """Count records, labels, lengths, media and their places, and records by combination of text and media.

    Each file is read once, in constant memory.

    Example:
        umie data stats train.jsonl dev.jsonl test.jsonl --figure stats.png
        umie data stats mnre/train.txt --format mnre --json > mnre.json
    """
    from umie.audit.statistics import gather
    from umie.registry import load_plugins

    load_plugins(plugins or ())
    check_figure(figure)
    check_distinct(files)
    stems = [file.stem for file in files]
    names = stems if len(set(stems)) == len(stems) else [str(file) for file in files]
    splits: dict[str, Statistics] = {}
    for name, file in zip(names, files, strict=True):
        source = source_of(file, format_name, images, regions, format_option)
        with counting(f"counting {file.name}") as count:
            splits[name] = gather(source.records(), images=not no_images, progress=count)
    summaries = {name: statistics.summary() for name, statistics in splits.items()}
    if as_json:
        print_json(summaries, indent=2)
    else:
        show(_table(summaries))
    if figure is not None:
        from umie.reports.data_figure import write_figure

        write_figure(figure, splits)
        if not as_json:
            print_line(f"Written: {figure}")


def _table(summaries: Mapping[str, Mapping[str, Any]]) -> Table:
    combinations = _keys(one["combinations"] for one in summaries.values())
    caption = "* mean (median, 95th percentile, maximum)"
    caption += "\nT text, I image, A sound, V video" if len(combinations) > 1 else ""
    look: dict[str, Any] = {"box": None, "header_style": "bold", "caption": caption, "caption_justify": "left"}
    table = number_table("", *map(escape, summaries), **look)
    table.columns[0].no_wrap = True
    files = list(summaries.values())
    table.add_row("records", *(f"{one['records']:,}" for one in files))
    for name in _keys(one["items"] for one in files):
        counts = [one["items"].get(name) for one in files]
        table.add_row(name, *("-" if count is None else f"{count:,}" for count in counts))
    for task in _keys(one["labels"] for one in files):
        table.add_row(f"[bold]{escape(task.upper())}")
        used = [Counter(one["labels"].get(task)) for one in files]
        for label in sorted(_keys(used), key=lambda label: -sum(counts[label] for counts in used)):
            table.add_row(f"  {escape(label)}", *(_with_share(counts[label], counts.total()) for counts in used))
    table.add_row("[bold]lengths*")
    for name in _keys(one["lengths"] for one in files):
        found = [one["lengths"].get(name) for one in files]
        if any(length and length["max"] for length in found):
            shown = "{mean:.1f} ({p50}, {p95}, {max})"
            table.add_row(f"  {name}", *("-" if length is None else shown.format(**length) for length in found))
    table.add_row("[bold]spans")
    table.add_row("  spans", *(f"{one['spans']['total']:,}" for one in files))
    table.add_row("  multi-word", *(_percent(one["spans"]["multi_word_share"]) for one in files))
    if len(combinations) > 1:
        table.add_row("[bold]text and media")
        for name in combinations:
            numbers = ((one["combinations"].get(name, 0), one["records"]) for one in files)
            table.add_row(f"  {name}", *(_with_share(*number) for number in numbers))
    for plural in ("images", "sounds", "videos"):
        found = [one[plural] for one in files]
        if plural != "images" and not any(one["named"] for one in found):
            continue
        table.add_row(f"[bold]{plural}")
        table.add_row("  named", *(_with_share(one[plural]["named"], one["records"]) for one in files))
        if any("several" in one for one in found):
            table.add_row("  several in a record", *(f"{one.get('several', 0):,}" for one in found))
        if any(one["checked"] and one["named"] for one in found):
            table.add_row("  missing", *(_with_share(one["missing"], one["named"]) for one in found))
    return table


def _keys(found: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return the distinct keys in the order of their first use."""
    return list(dict.fromkeys(chain.from_iterable(found)))


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.1f}%"


def _with_share(part: int, whole: int) -> str:
    return f"{part:,} ({_percent(part / whole)})" if whole else f"{part:,}"


def sample(
    file: Annotated[Path, typer.Argument(help="The file to sample from.")],
    number: Annotated[int, typer.Option("--number", "-n", min=1, help="Number of records.")] = 5,
    seed: Annotated[int, typer.Option(help="Random seed.")] = 0,
    format_name: Format = "jsonl",
    images: Images = None,
    regions: Regions = None,
    format_option: FormatOptions = None,
    as_json: JsonFlag = False,
) -> None:
    """Show a random sample of records with their spans marked in the text.

    In a terminal, spans are colored by type; otherwise they are in brackets: [Ann Lee|person].

    Example:
        umie data sample train.jsonl -n 3 --seed 7
        umie data sample train.jsonl -n 100 --json > sample.jsonl
    """
    from umie.data.source import draw_records
    from umie.records import record_to_json

    source = source_of(file, format_name, images, regions, format_option)
    with counting(f"sampling {file.name}") as count:
        drawn = draw_records(source, number, seed, progress=count)
    if not drawn:
        raise UmieError(f"{file}: contains no records")
    for place, record in drawn:
        if as_json:
            print_json(json.loads(record_to_json(record)))
        else:
            image = f"image {', '.join(map(str, record.images))}" if record.images else "no image"
            head = f"{source.place(place)}  id {record.id}, {image}, {len(record.regions)} regions\n"
            shown = Text.assemble((head, "dim"), _marked(record), "\n", *(f"  {line}\n" for line in _lines(record)))
            out.print(shown, soft_wrap=True, highlight=False)


def _marked(record: Record) -> Text:
    """Return the text with its spans marked, except spans that overlap an earlier one."""
    spans = [(entity.span, entity.type) for entity in record.entities if entity.span is not None]
    spans += [(event.trigger, event.type) for event in record.events if event.trigger is not None]
    for relation in record.relations:
        spans += [(span, end) for span, end in ((relation.head, "head"), (relation.tail, "tail")) if span is not None]
    text, end = Text(), 0
    kinds = sorted({kind for _, kind in spans})
    for span, kind in sorted(dict.fromkeys(spans)):
        if span[0] < end:
            continue
        text.append(record.text[end : span[0]])
        if out.is_terminal:
            text.append(record.surface(span), style=f"bold {_COLORS[kinds.index(kind) % len(_COLORS)]}")
            text.append(f"|{kind}", style="dim")
        else:
            text.append(f"[{record.surface(span)}|{kind}]")
        end = span[1]
    text.append(record.text[end:])
    return text


def _lines(record: Record) -> Iterator[str]:
    from umie.records import MEDIA
    from umie.records.places import described, place_name

    def named(span: Span | None, places: Places) -> str:
        shown = [f"{record.surface(span)!r} {list(span)}"] if span is not None else []
        for medium in MEDIA:
            for index in places.of(medium):
                shown.append(f"{place_name(medium, index)} {described(record.places(medium)[index])}")
        return ", ".join(shown) or ("(in the image)" if record.media == ("image",) else "(not in the text)")

    for entity in record.entities:
        yield f"{entity.type}: {named(entity.span, entity.places)}"
    for relation in record.relations:
        head, tail = named(relation.head, relation.head_places), named(relation.tail, relation.tail_places)
        yield f"{head} -- {relation.type} --> {tail}"
    for event in record.events:
        yield f"event {event.type}: {named(event.trigger, event.places)}"
        for argument in event.arguments:
            yield f"  {argument.role}: {named(argument.span, argument.places)}"
