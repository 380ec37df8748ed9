"""What a path through a constraint tells: the items that were written, with spans of the text itself."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from umie.constrained.literals import Opened
from umie.constrained.symbols import View
from umie.records import Span
from umie.tasks.grammar import RawItem, occurrence_of, region_name

DONE = "done"  # the event of a completed item


def items_told(events: Iterable[Any], view: View, text: str) -> list[RawItem]:
    """Return the completed items that events tell of.

    Args:
        events: in their order, what opened an item or named its region, the symbols of its span, ``DONE``, and
            the digits of its occurrence.
        view: the text in the symbols that the events hold.
        text: the text.
    """
    told: list[tuple[str, int | None, str, int]] = []
    label, region, symbols, number = "", None, "", 0
    for event in events:
        if isinstance(event, Opened):
            if event.region is not None:
                region = event.region
            elif event.label is not None:
                label, region, symbols, number = event.label, None, "", 0
        elif event == DONE:
            told.append((label, region, symbols, 1))
        elif isinstance(event, int):
            number = number * 10 + event
            told[-1] = label, region, symbols, number
        else:
            symbols += event
    items = (_item(*item, view, text) for item in told)
    return [item for item in items if item is not None]


def _item(label: str, region: int | None, symbols: str, number: int, view: View, text: str) -> RawItem | None:
    """Return an item; None if its symbols stand for white space alone, as of a sign that the tokenizer drops."""
    if region is not None:
        return RawItem(label, region_name(region), is_region=True)
    if not symbols:
        return RawItem(label)
    start, end = _place(symbols.rstrip(" "), number, view)
    covered = text[start:end]
    span = start + len(covered) - len(covered.lstrip()), end - len(covered) + len(covered.rstrip())
    if not covered.strip():
        return None
    return RawItem(label, text[slice(*span)], occurrence=occurrence_of(text, span))


def _place(symbols: str, number: int, view: View) -> Span:
    found = view.symbols.find(symbols)
    for _ in range(number - 1):
        found = view.symbols.find(symbols, found + 1)
    return view.span(found, found + len(symbols))
