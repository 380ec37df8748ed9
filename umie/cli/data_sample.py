"""`umie data sample`: random records with their annotation marked."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from umie.cli.console import out
from umie.cli.options import Format, FormatOptions, Images, JsonFlag, Regions, source_of
from umie.cli.progress import counting
from umie.errors import UmieError

if TYPE_CHECKING:
    from umie.records import Argument, Record, Span

_COLORS = ("cyan", "green", "magenta", "yellow", "blue", "red")


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
    from umie.data.sampling import draw_records
    from umie.records import record_to_json

    source = source_of(file, format_name, images, regions, format_option)
    with counting(f"sampling {file.name}") as count:
        drawn = draw_records(source, number, seed, progress=count)
    if not drawn:
        raise UmieError(f"{file}: contains no records")
    for place, record in drawn:
        if as_json:
            typer.echo(record_to_json(record))
        else:
            out.print(_shown(record, source.place(place), color=out.is_terminal), soft_wrap=True, highlight=False)


def _shown(record: Record, place: str, color: bool) -> Text:
    text = Text()
    image = "no image" if record.image is None else f"image {record.image}"
    text.append(f"{place}  id {record.id}, {image}, {len(record.regions)} regions\n", style="dim")
    text.append_text(_marked(record, color))
    text.append("\n")
    for line in _lines(record):
        text.append(f"  {line}\n")
    return text


def _marked(record: Record, color: bool) -> Text:
    """Return the text with its spans marked, except spans that overlap an earlier one."""
    spans = [(entity.span, entity.type) for entity in record.entities]
    spans += [(event.trigger, event.type) for event in record.events if event.trigger is not None]
    for relation in record.relations:
        spans += [(relation.head, "head"), (relation.tail, "tail")]
    text, end = Text(), 0
    kinds = sorted({kind for _, kind in spans})
    for span, kind in sorted(dict.fromkeys(spans)):
        if span[0] < end:
            continue
        text.append(record.text[end : span[0]])
        if color:
            text.append(record.surface(span), style=f"bold {_COLORS[kinds.index(kind) % len(_COLORS)]}")
            text.append(f"|{kind}", style="dim")
        else:
            text.append(f"[{record.surface(span)}|{kind}]")
        end = span[1]
    text.append(record.text[end:])
    return text


def _lines(record: Record) -> Iterator[str]:
    def named(span: Span | None) -> str:
        return "(in the image)" if span is None else f"{record.surface(span)!r} {list(span)}"

    def filler(argument: Argument) -> str:
        if argument.region is None:
            return named(argument.span)
        return f"O{argument.region + 1} {[round(edge, 3) for edge in record.regions[argument.region].box]}"

    for entity in record.entities:
        yield f"{entity.type}: {named(entity.span)}"
    for relation in record.relations:
        yield f"{named(relation.head)} -- {relation.type} --> {named(relation.tail)}"
    for event in record.events:
        yield f"event {event.type}: {named(event.trigger)}"
        for argument in event.arguments:
            yield f"  {argument.role}: {filler(argument)}"
