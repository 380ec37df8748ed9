"""`umie data sample`: a few records, drawn at random and shown so that they can be judged."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from umie.cli.console import out
from umie.cli.options import Format, Images, JsonFlag, MappingFile, Regions, counting
from umie.errors import UmieError

if TYPE_CHECKING:
    from umie.records import Argument, Record, Span

_COLORS = ("cyan", "green", "magenta", "yellow", "blue", "red")


def sample(
    file: Annotated[Path, typer.Argument(help="The file to draw from.")],
    number: Annotated[int, typer.Option("--number", "-n", min=1, help="How many records to draw.")] = 5,
    seed: Annotated[int, typer.Option(help="The same seed draws the same records.")] = 0,
    format_name: Format = "jsonl",
    images: Images = None,
    regions: Regions = None,
    mapping: MappingFile = None,
    as_json: JsonFlag = False,
) -> None:
    """Show some records, each equally likely to be drawn, with their spans marked in the text.

    In a terminal spans are colored by type; elsewhere they stand in brackets, [Ann Lee|person].

    Example:
        umie data sample tw17/train.jsonl -n 3 --seed 7
        umie data sample tw17/train.jsonl -n 100 --json > some.jsonl
    """
    from umie.data.source import Source
    from umie.records import record_to_json

    generator = random.Random(seed)
    drawn: list[tuple[int, Record]] = []
    source = Source(file, format_name, images, regions, mapping)
    with counting(f"drawing from {file.name}") as count:
        # a reservoir (Vitter's algorithm R): one pass, and memory for the records drawn only
        for position, (place, record) in enumerate(source.numbered()):
            count()
            slot = position if position < number else generator.randint(0, position)
            if slot < number:
                drawn[slot : slot + 1] = [(place, record)]
    if not drawn:
        raise UmieError(f"{file}: holds no records")
    for place, record in sorted(drawn, key=lambda item: item[0]):
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
    """Return the text with its entities and triggers marked; one that overlaps an earlier one is left to the list."""
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
