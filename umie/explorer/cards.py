"""The answers as HTML: a card for each variant and for the annotation, in which texts from data are escaped."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

from umie.explorer.examples import Example
from umie.explorer.explorer import Shown
from umie.explorer.variant import Answer, LoadedVariant
from umie.extraction.explain import VIEWS
from umie.files import json_text
from umie.records import MEDIA, Medium, Record
from umie.records.html import COLORS
from umie.reports.pages import rendered
from umie.reports.record_page import MAX_SOUND, Item, Part, items_of, medium_view, pieces_of
from umie.tasks import task_class

_NUMBERS = re.compile(r"\[\n[-+.,\d\se]+\]")  # a list of numbers with line breaks, which strings in JSON do not have
_TEMPLATES = Path(__file__).parent / "templates"
TRIGGER = "trigger"  # the role of the part with an event's trigger
MAX_WIDTH, MAX_HEIGHT = 720, 420  # pixels of an image
MAX_WORD = 16  # characters
SHORT_VIEWS = {"without": "without the image", "blank": "with a gray one"}
_KINDS = {"entities": "entity", "relations": "relation", "events": "event", "arguments": "argument"}  # of tasks, rows
Colors: TypeAlias = Mapping[tuple[str, str], str]  # by kind and label
Key: TypeAlias = tuple[Any, ...]  # what an item says about the text


class Row(NamedTuple):
    """A line of the table: an entity, a relation, an event or an argument."""

    key: Key
    item: Item
    label: str
    parts: tuple[Part, ...]
    kind: str

    @property
    def probability(self) -> float | None:
        """The probability of the item or argument."""
        return self.parts[0].probability if self.parts else None


@dataclass(frozen=True)
class Card:
    """A record with items as the page shows it.

    Args:
        name: the variant, or what the annotated record is called.
        record: the record with its items.
        line: the extraction as plain values, which can be copied; {} for the annotation.
        views: what is shown of its media, see ``medium_view``.
        answer: the answer of a variant; None for the annotation.
    """

    name: str
    record: Record
    line: Mapping[str, Any]
    views: tuple[Mapping[str, Any], ...]
    answer: Answer | None = None


def cards_of(shown: Shown) -> list[Card]:
    """Return the cards of answers, and that of the annotation at the end; media are read here and not again."""
    cards = []
    for answer in shown.answers:
        found = answer.extraction
        line = found.to_json()
        for key in {"images", *MEDIA} & line.keys():  # paths of this machine are of no use to others
            paths = line[key]
            line[key] = Path(paths).name if isinstance(paths, str) else [Path(path).name for path in paths]
        cards.append(Card(answer.variant, found.record, line, _views(found.record, answer.media), answer))
    if shown.annotated is not None:
        cards.append(Card(f"Annotation: {shown.place}", shown.annotated, {}, _views(shown.annotated, MEDIA)))
    return cards


def render_cards(cards: Sequence[Card], labels: Mapping[str, Sequence[str]], threshold: float = 0.0) -> str:
    """Return cards as HTML.

    Args:
        cards: those of ``cards_of``.
        labels: the labels of each task, whose order decides about their colors.
        threshold: items of answers with a lower probability are left out.
    """
    every = [list(items_of(card.record)) for card in cards]
    colors = _colors([row for items in every for row in _rows(items)], labels)
    kept = [
        items if card.answer is None else [one for item in items if (one := _above(item, threshold)) is not None]
        for card, items in zip(cards, every, strict=True)
    ]
    keys = [{row.key for row in _rows(items)} for items in kept]
    answers = [number for number, card in enumerate(cards) if card.answer is not None]
    annotated = next((own for own, card in zip(keys, cards, strict=True) if card.answer is None), None)
    found = []
    for number, (card, items) in enumerate(zip(cards, kept, strict=True)):
        others = [other for other in answers if other != number]
        rows = list(_rows(items))
        if card.answer is None:
            marks = {row.key: _missed(row.key, [(cards[other].name, keys[other]) for other in others]) for row in rows}
        else:
            marks = {row.key: _marks(row.key, [keys[other] for other in others], annotated) for row in rows}
        hidden = sum(1 for _ in _rows(every[number])) - len(rows)
        found.append(_card(card, items, rows, colors, marks, hidden))
    return rendered(template("cards.html"), cards=found)


def render_examples(examples: Sequence[Example]) -> str:
    """Return the examples as a row of buttons."""
    return rendered(template("examples.html"), examples=examples)


def render_head(variants: Sequence[LoadedVariant]) -> str:
    """Return the title of the page: the variants and what they consist of."""
    return rendered(template("head.html"), variants=variants)


def render_problem(message: str) -> str:
    """Return a message about the form."""
    return rendered('<p class="ux-problem" role="alert">{{ message }}</p>', message=message) if message else ""


def render_note(text: str) -> str:
    """Return a sentence for the user."""
    return rendered('<p class="ux-note">{{ text }}</p>', text=text)


def template(name: str) -> str:
    """Return a file of the page: HTML to be filled in, a style or a script."""
    return (_TEMPLATES / name).read_text(encoding="utf-8")


def _views(record: Record, media: Sequence[Medium]) -> tuple[Mapping[str, Any], ...]:
    """Return what is shown of the given media of a record."""
    budget = [MAX_SOUND]
    own = [one for one in record.numbered_media if one[0] in media]
    return tuple(medium_view(record, medium, number, {}, budget) for medium, number in own)


def _rows(items: Iterable[Item]) -> Iterator[Row]:
    for item in items:
        if item.kind == "entity":
            yield Row(("entity", item.title, _end(item.parts[0])), item, item.title, tuple(item.parts), item.kind)
        elif item.kind == "relation":
            ends = tuple(map(_end, item.parts))
            yield Row(("relation", item.title, *ends), item, item.title, tuple(item.parts), item.kind)
        else:
            trigger = tuple(part for part in item.parts if part.role == TRIGGER and part is item.parts[0])
            own = ("event", item.title, *map(_end, trigger))
            yield Row(own, item, item.title, trigger, item.kind)
            for part in item.parts[len(trigger) :]:
                yield Row((*own, part.role, _end(part)), item, part.role, (part,), "argument")


def _end(part: Part) -> Key:
    """Return what a part says about the text; its places count only if it has no span, as in ``umie explain``."""
    return (0, *part.span) if part.span is not None else (1, *part.places.names)


def _above(item: Item, threshold: float) -> Item | None:
    """Return an item without what is less probable; None if the item itself is."""

    def is_below(part: Part) -> bool:
        return part.probability is not None and part.probability < threshold

    if item.kind != "event":
        return None if is_below(item.parts[0]) else item
    if item.parts and item.parts[0].role == TRIGGER and is_below(item.parts[0]):
        return None
    return replace(item, parts=[part for part in item.parts if not is_below(part)])


def _marks(key: Key, others: Sequence[set[Key]], annotated: set[Key] | None) -> list[tuple[str, str, str]]:
    """Return marks of an item that was found: a class, the text and what it means."""
    marks = []
    if annotated is not None:
        marks.append(("good", "✓", "as annotated") if key in annotated else ("wrong", "✗", "not annotated"))
    if others and not any(key in other for other in others):
        marks.append(("differs", "only here", "the other variant did not find it"))
    return marks


def _missed(key: Key, answers: Sequence[tuple[str, set[Key]]]) -> list[tuple[str, str, str]]:
    """Return a mark of an annotated item that not every variant found."""
    without = [name for name, keys in answers if key not in keys]
    if not without:
        return [("good", "✓", "found")]
    by = "" if len(without) == len(answers) else f" by {without[0]}"
    return [("bad", f"missed{by}", "annotated, and not found")]


def _colors(rows: Iterable[Row], labels: Mapping[str, Sequence[str]]) -> Colors:
    """Return the color of each kind and label; those of entities and relations, or of events and arguments, differ."""
    known: dict[str, list[str]] = {}
    for task, own in labels.items():
        known.setdefault(_KINDS.get(task_class(task).kind, ""), []).extend(own)
    found = {}
    for row in rows:
        own = known.setdefault(row.kind, [])
        own += [] if row.label in own else [row.label]
        first = len(COLORS) // 2 if row.kind in ("relation", "argument") else 0
        found[row.kind, row.label] = COLORS[(first + own.index(row.label)) % len(COLORS)]
    return found


def _card(
    card: Card,
    items: Sequence[Item],
    rows: Sequence[Row],
    colors: Colors,
    marks: Mapping[Key, list[tuple[str, str, str]]],
    hidden: int,
) -> dict[str, Any]:
    answer = card.answer
    owners = {id(part): row for row in rows for part in row.parts}
    names: dict[str, list[dict[str, Any]]] = {}  # of a place: what it shows
    for row in rows:
        for part in row.parts:
            for place in part.places.names:
                names.setdefault(place, []).append(_name(row, part, colors))
    entities = {part.span for item in items if item.kind == "entity" for part in item.parts}
    # a relation between entities is only in the table, so that the text can be read
    marked = [item for item in items if item.kind != "relation" or not {part.span for part in item.parts} <= entities]
    pieces = [
        {
            **_glued(piece["text"]),
            "numbers": [item.number for item in piece["items"]],
            "color": _color(owners[id(piece["parts"][0][1])], colors) if piece["parts"] else None,
            "ends": [_name(owners[id(part)], part, colors) for _, part in piece["ends"]],
        }
        for piece in pieces_of(card.record.text, marked)
    ]
    text = _NUMBERS.sub(lambda found: " ".join(found[0].split()), json_text(card.line, indent=2))
    return {
        "name": card.name,
        "is_answer": answer is not None,
        "text": pieces,
        "media": [_medium(view, names) for view in card.views],
        "rows": [{"row": row, "color": _color(row, colors), "marks": marks[row.key]} for row in rows],
        "hidden": hidden,
        "warnings": [] if answer is None else [notice.message for notice in answer.extraction.warnings],
        "facts": [] if answer is None else list(_facts(answer)),
        "explanation": None if answer is None else _explanation(answer),
        "json": None if answer is None else text,
        "download": base64.b64encode(text.encode()).decode(),
        "file": f"{card.name.replace('/', '-')}.json",
    }


def _glued(text: str) -> dict[str, str]:
    """Return a text without its last word, and this word, next to which a label stays."""
    start, space, word = text.rpartition(" ")
    return {"start": start + space, "word": word} if len(word) < MAX_WORD else {"start": text, "word": ""}


def _color(row: Row, colors: Colors) -> str:
    return colors[row.kind, row.label]


def _name(row: Row, part: Part, colors: Colors) -> dict[str, Any]:
    """Return a label as it is written after words or on a box."""
    label = f"{row.label} ({part.role})" if row.kind == "relation" else row.label
    own = {"number": row.item.number, "color": _color(row, colors), "probability": part.probability}
    return {"label": label, **own}


def _medium(view: Mapping[str, Any], names: Mapping[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """Return what is shown of a medium with the names of what its places show."""
    frames = [
        {
            **frame,
            "boxes": [_box(box, frame["size"], names) for box in frame["boxes"]],
            "most": round(min(MAX_WIDTH, MAX_HEIGHT * frame["size"][0] / frame["size"][1])),
            "is_small": frame["scale"] > 2,
        }
        for frame in view["frames"]
    ]
    segments = [{**one, "names": names.get(one["place"], [])} for one in view.get("segments", ())]
    return {**view, "name": Path(view["name"]).name, "frames": frames, "segments": segments}


def _box(box: Mapping[str, Any], size: tuple[int, int], names: Mapping[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """Return a box in percent of its image, so that its names keep their size."""
    width, height = size
    own = names.get(box["place"], [])
    return {
        "place": box["place"],
        "title": box["name"],
        "names": own,
        "mask": box["mask"],
        "left": 100 * box["x"] / width,
        "top": 100 * box["y"] / height,
        "width": 100 * box["width"] / width,
        "height": 100 * box["height"] / height,
        "is_right": box["x"] > 0.6 * width,
    }


def _facts(answer: Answer) -> Iterator[str]:
    """Yield the gate and the time."""
    gates = {task: gate for task, gate in answer.extraction.gate.items() if gate is not None}
    if answer.gate is not None and gates:
        yield f"gate fixed at {answer.gate:.2f}"
    elif gates:
        yield "gate: " + ", ".join(f"{task} {gate:.2f}" for task, gate in gates.items())
    yield f"{answer.seconds:.2f} s"


def _explanation(answer: Answer) -> dict[str, Any] | None:
    found = answer.explanation
    if found is None:
        return None
    sentences = []
    for view in found.views:
        changed, number = found.counts(view)
        sentences.append(f"{changed} of {number} items {'changes' if changed == 1 else 'change'} {SHORT_VIEWS[view]}")
    rows = [
        {"text": one.text, "cells": list(zip(cells, (one.changed(view) for view in found.extractions), strict=True))}
        for one, (_, *cells) in zip(found.decisions, found.rows(), strict=True)
    ]
    return {"sentences": sentences, "views": [(view, VIEWS[view]) for view in found.extractions], "rows": rows}
