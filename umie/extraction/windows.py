"""Long texts in windows: a text that does not fit into the model's input is read in overlapping parts."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from umie.extraction.result import Extraction, ExtractionAnswer, Notice
from umie.records import Entity, Event, Record, Relation, Span

OVERLAP = 160  # characters on each side of a border, so that no item at a border is cut in both windows
SHORTEST = 64  # a window of fewer characters is not split
# after the end of a sentence, or after any word; in scripts without spaces, after any character
_BREAKS = (re.compile(r"[.!?。！？…][\"'”’)\]]*\s*|\n+"), re.compile(r"\s+"), re.compile(r""))


@dataclass(frozen=True)
class Window:
    """A part of a text: what the model reads, and within it the characters whose items count.

    An item belongs to the window in which it begins; what is around it is only context.
    """

    start: int
    end: int
    first: int
    last: int

    def owns(self, item: Any) -> bool:
        """Return whether an item of the window's own text begins in it; one without words belongs to the first."""
        starts = [span[0] + self.start for span in _spans(item)]
        return self.first <= min(starts) < self.last if starts else self.first == 0


def windows_of(text: str, fits: Callable[[str], bool]) -> list[Window]:
    """Return the windows of a text, each of which fits; one, if the whole text does.

    Borders are at ends of sentences, else between words, near the middle of what does not fit.

    Args:
        text: the text.
        fits: whether a part of it fits into the input of the model.
    """
    found: list[Window] = []

    def add(first: int, last: int) -> None:
        reach = min(OVERLAP, (last - first) // 2)
        start, end = _word_start(text, first - reach), _word_end(text, last + reach)
        middle = _border(text, first, last)
        if middle is None or last - first < SHORTEST or fits(text[start:end]):
            found.append(Window(start, end, first, last))
        else:
            add(first, middle)
            add(middle, last)

    add(0, len(text))
    return found


def in_window(record: Record, window: Window) -> Record:
    """Return the part of a record in a window: its text, and the items that begin in it and are all in the window."""

    def moved(items: Sequence[Any]) -> tuple[Any, ...]:
        inside = [one for one in items if all(window.start <= a and b <= window.end for a, b in _spans(one))]
        own = [shifted(one, -window.start) for one in inside]
        return tuple(one for one in own if window.owns(one))

    parts: dict[str, Any] = {name: moved(getattr(record, name)) for name in ("entities", "relations", "events")}
    return replace(record, text=record.text[window.start : window.end], gold=None, **parts)


def merged(record: Record, windows: Sequence[Window], found: Sequence[Extraction]) -> Extraction:
    """Return the extractions of the windows of a record as one, with offsets into its text."""
    items: dict[str, dict[Any, None]] = {"entities": {}, "relations": {}, "events": {}}
    answers: list[ExtractionAnswer] = []
    for window, one in zip(windows, found, strict=True):
        for name, own in items.items():
            own |= {shifted(item, window.start): None for item in getattr(one.record, name) if window.owns(item)}
        answers += [_shifted_answer(answer, window) for answer in one.answers]
    answers = [one for one in answers if _is_asked(record, one.task, one.target, found[0].record.tasks)]
    for name, task in (("relations", "mre"), ("events", "meae")):
        items[name] = {one: None for one in items[name] if _is_asked(record, task, one, found[0].record.tasks)}
    first = found[0]
    bare = replace(first.record, text=record.text, entities=(), relations=(), events=())
    notices = dict.fromkeys(notice for one in found for notice in one.warnings)
    message = f"the text is too long for the model, and was read in {len(windows)} windows"
    whole: dict[str, Any] = {name: tuple(sorted(own, key=_place)) for name, own in items.items()}
    return replace(
        first, record=replace(bare, **whole), warnings=(Notice("windows", message), *notices), answers=tuple(answers)
    )


def shifted(item: Any, offset: int) -> Any:
    """Return an entity, a relation or an event with all spans moved by a number of characters."""

    def moved(span: Span | None) -> Span | None:
        return None if span is None else (span[0] + offset, span[1] + offset)

    if isinstance(item, Entity):
        return replace(item, span=moved(item.span))
    if isinstance(item, Relation):
        return replace(item, head=moved(item.head), tail=moved(item.tail))
    if isinstance(item, Event):
        arguments = tuple(replace(one, span=moved(one.span)) for one in item.arguments)
        return replace(item, trigger=moved(item.trigger), arguments=arguments)
    if isinstance(item, tuple):  # a pair: head, tail and their places
        return (*map(moved, item[:2]), *item[2:])
    return item


def _is_asked(record: Record, task: str, target: Any, tasks: Sequence[str] | None) -> bool:
    """Return False for what was asked about only because no given pair or event begins in the window."""
    if task == "mre" and record.relations and target is not None:
        pair = (target.head, target.tail) if isinstance(target, Relation) else target[:2]
        return pair in {(one.head, one.tail) for one in record.relations}
    if task == "meae" and record.events and "med" not in (tasks or ()) and target is not None:
        return target.trigger in {one.trigger for one in record.events}
    return True


def _shifted_answer(answer: ExtractionAnswer, window: Window) -> ExtractionAnswer:
    own = tuple((shifted(item, window.start), value) for item, value in answer.probabilities if window.owns(item))
    return replace(answer, target=shifted(answer.target, window.start), probabilities=own)


def _spans(item: Any) -> list[Span]:
    """Return what an item begins with: the span of an entity, those of both ends, or the trigger."""
    if isinstance(item, Relation):
        given: list[Span | None] = [item.head, item.tail]
    elif isinstance(item, Event):  # of an event that only the image shows, its arguments
        given = [item.trigger] if item.trigger is not None else [one.span for one in item.arguments]
    else:
        given = [getattr(item, "span", None)]
    return [span for span in given if span is not None]


def _place(item: Any) -> tuple[int, ...]:
    return min(_spans(item), default=(1 << 60, 0))


def _border(text: str, first: int, last: int) -> int | None:
    """Return the border nearest to the middle between two characters, or None if there is none between them."""
    middle, quarter = (first + last) // 2, (last - first) // 4
    for pattern in _BREAKS:
        part = range(middle - quarter, middle + quarter)
        ends = [found.end() for found in pattern.finditer(text, part.start, part.stop) if first < found.end() < last]
        if ends:
            return min(ends, key=lambda end: abs(end - middle))
    return None


def _word_start(text: str, at: int) -> int:
    """Return the start of a word at or a little after a character."""
    if at <= 0:
        return 0
    found = re.compile(r"\s\S").search(text, max(0, at - 1), at + OVERLAP // 2)
    return at if found is None else found.start() + 1


def _word_end(text: str, at: int) -> int:
    """Return the end of a word at or a little before a character."""
    if at >= len(text):
        return len(text)
    back = re.compile(r"\s").search(text[max(0, at - OVERLAP // 2) : at + 1][::-1])
    return at if back is None else at - back.start()
