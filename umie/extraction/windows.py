"""Long texts in windows: a text that does not fit into the model's input is read in overlapping parts."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from umie.extraction.result import Extraction, ExtractionAnswer, Notice
from umie.processor import UmieProcessor
from umie.records import MEDIA, Argument, Entity, Event, Medium, Record, Relation, Span
from umie.records.places import PLACES
from umie.tasks import Task, task_class

OVERLAP = 160  # characters on each side of a border, so that no item at a border is cut in both windows
SHORTEST = 64  # a window of fewer bytes is not split
_REPEATED = 48  # characters
_MARGIN = 8  # tokens, as a text has a few more or less next to others
# after the end of a sentence, or after any word; in scripts without spaces, after any character
_BREAKS = (re.compile(r"[.!?。！？…][\"'”’)\]]*\s*|\n+"), re.compile(r"\s+"), re.compile(r""))


@dataclass(frozen=True)
class Window:
    """A part of a text: what the model reads, and within it the characters whose items count.

    An item belongs to the window in which it begins; what is around it is only context. A relation belongs to the first
    window that contains both of its ends.
    """

    start: int
    end: int
    first: int
    last: int
    is_first: bool = False  # of the windows of its text

    def owns(self, item: Any) -> bool:
        """Return whether an item of the window's own text begins in it; one without words belongs to the first."""
        starts = [span[0] + self.start for span in _spans(item)]
        return self.first <= min(starts) < self.last if starts else self.is_first

    def contains(self, item: Any) -> bool:
        """Return whether all words of an item of the whole text are in what the model reads."""
        return all(self.start <= start and end <= self.end for start, end in _spans(item))


class InputRoom:
    """The room for texts in the inputs of tasks.

    Args:
        processor: the processor of the model.
        tasks: the tasks.
    """

    def __init__(self, processor: UmieProcessor, tasks: Sequence[Task[Any]]) -> None:
        self._processor, self._tasks = processor, tasks
        self._taken: dict[tuple[int, ...], int] = {}  # tokens of the longest instruction, by the numbers of places

    def fits(self, record: Record, text: str) -> bool:
        """Return whether a part of a record's text fits into the input of each task."""
        most = self._processor.max_input_tokens
        if len(_bytes(text)) < most // 4 or text.isspace():
            return True  # instructions take less than three quarters, and a byte is at most one token
        places = tuple(len(record.places(medium)) for medium in MEDIA)
        if places not in self._taken:
            self._taken[places] = max((size for size, _ in self._inputs(record, "x", "x")), default=0)
        # instructions repeat the words of a pair or of an event
        repeated = text[:_REPEATED]
        needed = self._taken[places] + self._tokens(text)
        if needed - _MARGIN > most:
            return False
        if needed + 3 * self._tokens(repeated) + _MARGIN <= most:
            return True  # both without encoding it, which takes ten times as long
        return not any(is_truncated for _, is_truncated in self._inputs(record, f"{text} {repeated}", repeated))

    def _tokens(self, text: str) -> int:
        options = {"add_special_tokens": False, "split_special_tokens": True, "verbose": False}
        return len(self._processor.tokenizer(text, **options).input_ids)

    def _inputs(self, record: Record, text: str, repeated: str) -> Iterator[tuple[int, bool]]:
        """Yield the tokens of the input of each query about a text, and whether it is truncated."""
        span = (0, len(repeated))
        pair = Relation("none", span, span)
        bare = replace(record, text=text, gold=None, tasks=None, relations=(pair,), entities=(), events=())
        counts = self._processor.counts
        for task in self._tasks:
            for query in task.queries(bare):
                before = counts["truncated_inputs"]
                encoded = self._processor.encode_query(bare, query, task)
                yield encoded["input_ids"].shape[-1], counts["truncated_inputs"] > before


def windows_of(text: str, fits: Callable[[str], bool]) -> list[Window]:
    """Return the windows of a text, each of which fits; one, if the whole text does.

    Borders are at ends of sentences, else between words, near the middle of what does not fit. White space has none.

    Args:
        text: the text.
        fits: whether a part of it fits into the input of the model.
    """
    found: list[Window] = []

    def add(first: int, last: int) -> None:
        reach = min(OVERLAP, (last - first) // 2)
        start = min(first, _word_start(text, first - reach, reach // 2))
        end = max(last, _word_end(text, last + reach, reach // 2))
        middle = _border(text, first, last)
        if middle is None or len(_bytes(text[first:last])) < SHORTEST or fits(text[start:end]):
            if not text[first:last].isspace():
                found.append(Window(start, end, first, last))
        else:
            add(first, middle)
            add(middle, last)

    add(0, len(text))
    begin, *others = found or [Window(0, len(text), 0, len(text))]
    return [replace(begin, is_first=True), *others]


def is_whole(text: str, windows: Sequence[Window]) -> bool:
    """Return whether a text is read as it is: in one window, from its start to its end."""
    return len(windows) == 1 and (windows[0].start, windows[0].end) == (0, len(text))


def in_window(record: Record, window: Window, earlier: Sequence[Window] = ()) -> Record:
    """Return the part of a record in a window: its text, and the items that belong to it and are all in it.

    Events have no arguments, which nothing asks about; those that only media show belong to the first window.
    ``earlier`` are the windows before it, to which a pair may belong.
    """
    record = replace(record, events=tuple(replace(one, arguments=()) for one in record.events))

    def belongs(item: Any) -> bool:
        if not window.contains(item):
            return False
        if isinstance(item, Relation):
            return not any(one.contains(item) for one in earlier)
        return window.owns(shifted(item, -window.start))

    parts: dict[str, Any] = {
        name: tuple(shifted(one, -window.start) for one in getattr(record, name) if belongs(one))
        for name in ("entities", "relations", "events")
    }
    if record.relations:
        parts["entities"] = ()  # given pairs are the only ones that are asked about
    return replace(record, text=record.text[window.start : window.end], gold=None, **parts)


def merged(
    record: Record, windows: Sequence[Window], found: Sequence[Extraction], *, nested: bool = False
) -> Extraction:
    """Return the extractions of the windows of a record as one, with offsets into its text.

    Of two entities or triggers of different windows that overlap, the less probable one is left out, unless the model
    answers with ``nested`` ones: an item may cross the border after which another one begins.
    """
    first = found[0]
    places: dict[Medium, list[Any]] = {medium: list(record.places(medium)) for medium in MEDIA}
    entities: dict[Entity, int] = {}  # with the number of its window
    relations: dict[Any, list[Relation]] = {}  # by pair, those of the first window that was asked about it
    # by type, trigger and places, with the number of the window and the arguments
    events: dict[Any, tuple[Event, int, dict[Argument, None]]] = {}
    answers: list[ExtractionAnswer] = []
    for number, (window, one) in enumerate(zip(windows, found, strict=True)):
        own = _with_all_places(one.record, record, places)
        for item in own.entities:
            if window.owns(item):
                entities.setdefault(shifted(item, window.start), number)
        pairs: dict[Any, list[Relation]] = {}
        for relation in own.relations:
            moved = shifted(relation, window.start)
            pairs.setdefault((moved.head, moved.tail, moved.head_places, moved.tail_places), []).append(moved)
        new = {pair: own for pair, own in pairs.items() if pair not in relations}
        relations |= new
        asked_here = {pair[:2] for pair in new}
        for event in own.events:
            if window.owns(event):
                moved = shifted(event, window.start)
                known = events.setdefault((moved.type, moved.trigger, moved.places), (moved, number, {}))
                known[2].update(dict.fromkeys(moved.arguments))
        for answer in one.answers:
            target = shifted(answer.target, window.start)
            if not isinstance(target, tuple) or target[:2] in asked_here:
                answers.append(replace(answer, target=target))
    all_entities = list(entities.items())
    all_events = [(replace(one, arguments=tuple(own)), number) for one, number, own in events.values()]
    found_kinds = set() if nested else {task_class(name).kind for name in first.record.tasks or ()}  # others were given
    kept: dict[str, Any] = {
        "entities": tuple(sorted(_uncrossed(all_entities, "entities" in found_kinds), key=_place)),
        "relations": tuple(sorted((one for own in relations.values() for one in own), key=_place)),
        "events": tuple(sorted(_uncrossed(all_events, "events" in found_kinds), key=_place)),
    }
    if "mner" in (first.record.tasks or ()) and not record.relations:  # pairs are those of the entities
        spans = {None, *(one.span for one in kept["entities"])}
        kept["relations"] = tuple(one for one in kept["relations"] if {one.head, one.tail} <= spans)
    asked = {(one.head, one.tail) for one in kept["relations"]}
    bare = replace(first.record, text=record.text, entities=(), relations=(), events=())
    kept |= {kind: tuple(places[medium]) for medium, kind in PLACES.items()}
    notices = dict.fromkeys(notice for one in found for notice in one.warnings)
    how = f"in {len(windows)} windows" if len(windows) > 1 else "without the white space around its words"
    message = f"the text is too long for the model, and was read {how}"
    unasked = sum(not any(window.contains(pair) for window in windows) for pair in record.relations)
    message += f"; {unasked} given pairs are in no window together, and were not asked about" if unasked else ""
    sizes = (one.image_size for one in found if one.image_size is not None)
    return replace(
        first,
        record=replace(bare, **kept),
        warnings=(Notice("windows", message), *notices),
        answers=tuple(one for one in answers if not isinstance(one.target, tuple) or one.target[:2] in asked),
        image_size=next(sizes, None),
        more_image_sizes=max((one.more_image_sizes for one in found), key=len),
        video_size=next((one.video_size for one in found if one.video_size is not None), None),
    )


def _uncrossed(found: Sequence[tuple[Any, int]], is_flat: bool) -> list[Any]:
    """Return items, each given with the number of its window.

    If the answers are flat, those are left out that overlap with a more probable item of another window.
    """
    if not is_flat:
        return [item for item, _ in found]
    placed = sorted((spans[0], index) for index, (item, _) in enumerate(found) if (spans := _spans(item)))
    crossed: dict[int, set[int]] = {}
    for place, ((_, end), index) in enumerate(placed):
        for (start, _), other in placed[place + 1 :]:
            if start >= end:
                break
            if found[index][1] != found[other][1]:
                crossed.setdefault(index, set()).add(other)
                crossed.setdefault(other, set()).add(index)
    dropped: set[int] = set()
    for index in sorted(crossed, key=lambda one: -(found[one][0].probability or 0)):
        if index not in dropped:
            dropped |= crossed[index]
    return [item for index, (item, _) in enumerate(found) if index not in dropped]


def _with_all_places(found: Record, given: Record, places: dict[Medium, list[Any]]) -> Record:
    """Return a record that refers to all places of a medium: those that a grounder found in this window are added."""
    for medium, known in places.items():
        own, number = found.places(medium), len(given.places(medium))
        moved = {index: index if index < number else len(known) + index - number for index in range(len(own))}
        known += own[number:]
        if len(known) != len(own):
            found = found.regrounded(medium, known, moved)
    return found


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


def _bytes(text: str) -> bytes:
    return text.encode(errors="surrogatepass")


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
        near = pattern.finditer(text, middle - quarter, middle + quarter)
        ends = [found.end() for found in near if first < found.end() < last]
        if ends:
            return min(ends, key=lambda end: abs(end - middle))
    return None


def _word_start(text: str, at: int, most: int) -> int:
    """Return the start of a word at or at most some characters after a character."""
    if at <= 0:
        return 0
    found = re.compile(r"\s\S").search(text, max(0, at - 1), at + most)
    return at if found is None else found.start() + 1


def _word_end(text: str, at: int, most: int) -> int:
    """Return the end of a word at or at most some characters before a character."""
    if at >= len(text):
        return len(text)
    back = re.compile(r"\s").search(text[max(0, at - most) : at + 1][::-1])
    return at if back is None else at - back.start()
