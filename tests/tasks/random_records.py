"""Random records that are hard to write and parse: repeated, overlapping and nested spans, and special characters."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from umie.records import Argument, Entity, Event, Places, Record, Region, Relation, Segment, Span, Track
from umie.records.model import with_places
from umie.tasks.base import Query, Task
from umie.tasks.grammar import ParsedItem, with_occurrences
from umie.tasks.styles import STYLES

T = TypeVar("T")
Draw = Callable[[int, int], int]  # an integer between two bounds, inclusive

PIECES = (
    "a", "a", "b", "ab", "NY", "NY", "Ann Lee", " ", " ", "  ", ", ", ",", ": ", " = ", "[", "]", "|", "[a]", "]2",
    "<spot>", " <spot> ", "<extra_id_0>", "<extra_id_1>", " <extra_id_5> ", "<extra_id_6>", "O1", "O2", "O12", "none",
    "é", "e\u0301", "ß", "😀", "👩\u200d👧", "日本", "\n", "\t", "\u00a0", "\u200b", "1", "23", "²", '"', "\\",
    "{0}", "…",
)  # fmt: skip
LABELS: Mapping[str, tuple[str, ...]] = {
    "plain": ("person", "location", "none"),
    "spaces and commas": ("arrest jail", "arrest", "arrest, jail", "place of birth", "x  y"),
    "special characters": ("a:b", "[c]", "d=e|", "O1", "😀", "|"),
    "similar": ("Agent", "agent", "a", "a, b"),
}  # fmt: skip


def random_record(draw: Draw) -> tuple[Record, tuple[str, ...]]:
    """Return a record with annotation for all tasks, and its label schema.

    Args:
        draw: the source of randomness: ``random.Random.randint``, or a draw of hypothesis.
    """

    def choice(values: Sequence[T]) -> T:
        return values[draw(0, len(values) - 1)]

    def several(most: int, make: Callable[[], T]) -> list[T]:
        return [make() for _ in range(draw(0, most))]

    labels = LABELS[choice(tuple(LABELS))]
    pieces = [choice(PIECES) for _ in range(draw(1, 9))]
    text = "".join(pieces * draw(1, 2))
    if not text.strip():
        text += "x"
    regions = tuple(Region((0.0, 0.0, (index + 1) / 4, 1.0)) for index in range(draw(0, 3)))

    def span() -> Span:
        start = draw(0, len(text) - 1)
        return start, min(len(text), start + draw(1, 9))

    spans = [span() for _ in range(draw(1, 5))]

    def argument() -> Argument:
        if regions and not draw(0, 2):
            return Argument(choice(labels), regions=(draw(0, len(regions) - 1),))
        return Argument(choice(labels), choice(spans))

    def entity() -> Entity:
        shown = {draw(0, len(regions) - 1) for _ in range(draw(0, 2))} if regions else set()
        return Entity(choice(labels), choice(spans), regions=tuple(sorted(shown)))

    return Record(
        text,
        regions=regions,
        entities=tuple(dict.fromkeys(several(4, entity))),
        relations=tuple(dict.fromkeys(several(3, lambda: Relation(choice(labels), choice(spans), choice(spans))))),
        events=several(3, lambda: Event(choice(labels), choice((None, *spans)), several(3, argument))),
    ), labels


def random_grounded_record(draw: Draw) -> tuple[Record, tuple[str, ...]]:
    """Return a record of any combination of text and media, whose annotation has places in all of them."""
    record, labels = random_record(draw)
    segments = tuple(Segment((index, index + 1)) for index in range(draw(0, 12)))
    tracks = tuple(Track((index,), ((0, 0, 1, 1),)) for index in range(draw(0, 3)))
    numbers = (len(record.regions), len(tracks), len(segments))
    known: dict[object, Places] = {}  # one mention has the same places wherever it occurs

    def places(mention: object, least: int = 0) -> Places:
        if mention not in known:
            drawn = [{draw(0, number - 1) for _ in range(draw(0, 2))} if number else set() for number in numbers]
            if least and not any(drawn):
                drawn[next(place for place, number in enumerate(numbers) if number)] = {0}
            known[mention] = Places(*(tuple(sorted(indices)) for indices in drawn))
        return known[mention]

    has_text = not any(numbers) or draw(0, 2) > 0
    entities, relations, events = [], [], []
    for entity in record.entities:
        span = entity.span if has_text else None
        shown = places(entity.span, not has_text)
        entities.append(Entity(entity.type, span, "", *shown))
    for relation in record.relations:
        ends = [end if has_text else None for end in (relation.head, relation.tail)]
        shown_ends = [places(end, not has_text) for end in (relation.head, relation.tail)]
        relations.append(Relation(relation.type, *ends, *shown_ends))
    for event in record.events:
        trigger = event.trigger if has_text else None
        arguments = []
        for argument in event.arguments:
            span = argument.span if has_text else None
            if span is None and not any(numbers):
                continue
            arguments.append(Argument(argument.role, span, *places((argument, "filler"), span is None)))
        event = Event(event.type, trigger, tuple(arguments))
        events.append(with_places(event, places((event.type, trigger))))
    media = {medium: "x" for medium, number in zip(("image", "video", "audio"), numbers, strict=True) if number}
    return (
        Record(
            record.text if has_text else "", regions=record.regions, tracks=tracks, segments=segments,
            entities=tuple(dict.fromkeys(entities)), relations=tuple(dict.fromkeys(relations)), events=tuple(events),
            **media,
        ),
        labels,
    )  # fmt: skip


def asked_about(task: Task[Any], record: Record, query: Query) -> set[Any]:
    """Return the annotated items that the answer to a query should contain."""
    items = task.items(record)
    if task.name == "mner" and not task.config.grounded:
        items = [with_places(item, Places()) for item in items]
    if task.name == "med":
        items = [replace(item, arguments=()) for item in items]
    if task.name == "mre":
        items = [item for item in items if (item.head, item.tail) == query.target[:2]]
        items = [item for item in items if item.head or (item.head_places, item.tail_places) == query.target[2:]]
    if task.name == "meae":
        items = [item for item in items if (item.type, item.trigger) == (query.target.type, query.target.trigger)]
    return set(items)


def losses(task: Task[Any], record: Record, query: Query) -> set[str]:
    """Return the reasons, documented by the style, for which an answer may be parsed differently; empty if lossless.

    Args:
        task: the task, in any output style.
        record: the record.
        query: the query of the task in the style ``structured``, whose answer determines the items.
    """
    style = task.style.name
    if style == "structured":
        return set()
    schema = task.answer_schema(record, query.target)
    items, _ = STYLES["structured"].parse(query.answer, schema)
    fillers = [item.filler for item in items if item.filler is not None]
    strings = [*fillers, *(item.label for item in items), *(schema.pair or ())]
    found = set()
    if [item.occurrence for item in items] != [item.occurrence for item in with_occurrences(items)]:
        found.add("choice between equal spans")
    if any(marker in string for marker in task.style.markers for string in strings):
        found.add("contains a marker")
    if any(string != string.strip(" \t\r\n") for string in fillers):
        found.add("whitespace around a span")
    if any(_names_region(item, schema.places) for item in items):
        found.add("span named like a region")
    if style == "paper" and schema.pair is None and any(_ambiguous(item, schema.labels) for item in items):
        found.add("similar labels")
    return found


def _names_region(item: ParsedItem, names: tuple[str, ...]) -> bool:
    return item.filler is not None and item.filler.strip() in names


def _ambiguous(item: ParsedItem, labels: tuple[str, ...]) -> bool:
    written = item.label[:1].upper() + item.label[1:]
    others = [other[:1].upper() + other[1:] for other in labels if other != item.label]
    answer = written if item.filler is None else f"{written}, {item.filler}"
    longer = [other for other in others if len(other) > len(written)]
    return written in others or answer in others or any(answer.startswith(f"{other},") for other in longer)
