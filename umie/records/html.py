"""Records in notebooks: the text with colored spans, and a table of the items."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from html import escape
from itertools import pairwise
from typing import Any, NamedTuple

from umie.records.offsets import Span
from umie.records.places import Places

# Okabe and Ito's colors, which color-blind readers can distinguish, lightened so that text on them can be read
COLORS = ("#8fd3f5", "#f7d48a", "#8fdcc3", "#f3b0d0", "#f5b58a", "#b5c8ee", "#f2ec9b", "#cfcfcf")


class Line(NamedTuple):
    """A line of the table."""

    kind: str
    label: str
    parts: tuple[tuple[Span | None, Places], ...]
    probability: float | None


def record_html(record: Any, is_none: Callable[[str], bool] = lambda kind: kind.casefold() == "none") -> str:
    """Return a record as HTML without scripts: its text, its media by name, and its items.

    Args:
        record: the record.
        is_none: returns whether a label says that a pair has no relation; such pairs are left out.
    """
    lines = list(lines_of(record, is_none))
    labels = list(dict.fromkeys(line.label for line in lines))
    colors = {label: COLORS[number % len(COLORS)] for number, label in enumerate(labels)}
    media = ", ".join(
        f"{medium}: {one}" for medium in record.media for one in record.of(medium) if isinstance(one, str)
    )
    has_probabilities = any(line.probability is not None for line in lines)
    columns = "", "label", "words or places", *(["probability"] * has_probabilities)
    head = "".join(f"<th>{name}</th>" for name in columns)
    body = ""
    for line in lines:
        words = " &ndash; ".join(escape(said(record, *part)) for part in line.parts)
        color = f"background: {colors[line.label]}; color: black"
        cells = f"<td>{line.kind}</td><td style='{color}'>{escape(line.label)}</td><td>{words}</td>"
        if has_probabilities:
            cells += f"<td>{'' if line.probability is None else f'{line.probability:.2f}'}</td>"
        body += f"<tr>{cells}</tr>"
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>" if lines else "<p>no items</p>"
    note = f"<p><small>{escape(media)}</small></p>" if media else ""
    return f"<div><p style='white-space: pre-wrap'>{_marked(record, lines, colors)}</p>{note}{table}</div>"


def lines_of(record: Any, is_none: Callable[[str], bool]) -> Iterator[Line]:
    """Yield the items of a record, but for pairs without a relation, and the arguments of each event after it."""
    for entity in record.entities:
        yield Line("entity", entity.type, ((entity.span, entity.places),), entity.probability)
    for relation in record.relations:
        if not is_none(relation.type):
            ends = (relation.head, relation.head_places), (relation.tail, relation.tail_places)
            yield Line("relation", relation.type, ends, relation.probability)
    for event in record.events:
        yield Line("event", event.type, ((event.trigger, event.places),), event.probability)
        for argument in event.arguments:
            yield Line("argument", argument.role, ((argument.span, argument.places),), argument.probability)


def said(record: Any, span: Span | None, places: Places) -> str:
    """Return the words and the names of the places of a part of an item."""
    words = [] if span is None else [record.surface(span)]
    return " ".join([*words, *places.names]) or "(not in the text)"


def _marked(record: Any, lines: list[Line], colors: dict[str, str]) -> str:
    """Return the text with the spans of entities, triggers and arguments, in the color of the shortest one."""
    spans = [
        (span, line.label) for line in lines if line.kind != "relation" for span, _ in line.parts if span is not None
    ]
    edges = sorted({0, len(record.text), *(edge for span, _ in spans for edge in span)})
    found = ""
    for start, end in pairwise(edges):
        over = sorted(
            (one for one in spans if one[0][0] <= start and end <= one[0][1]), key=lambda one: one[0][1] - one[0][0]
        )
        text = escape(record.text[start:end])
        if over:
            names = escape(", ".join(dict.fromkeys(label for _, label in over)), quote=True)
            text = f"<mark style='background: {colors[over[0][1]]}; color: black' title=\"{names}\">{text}</mark>"
        found += text
    return found
