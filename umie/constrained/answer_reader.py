"""Read the items of an answer from its path through a constraint, with spans of the text itself."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from itertools import takewhile
from typing import Any, TypeAlias

from umie.constrained.literals import Opened
from umie.constrained.symbols import UNKNOWN, TokenSymbols, View
from umie.records import Span
from umie.tasks.calls import phrase_of
from umie.tasks.grammar import ParsedItem, occurrence_of

Configuration: TypeAlias = tuple[Any, ...]  # a place in an answer; see umie.constrained.automaton
Step: TypeAlias = tuple[Configuration, tuple[Any, ...]]  # a configuration and the events on the way to it
Path: TypeAlias = Any  # the events so far, as nested pairs; None at the start

DONE = "done"  # the event of a completed item


class Said(str):
    """The event of a symbol in the phrase of a call."""

    __slots__ = ()


class Reader:
    """Follow tokens through an answer's configurations and collect the events on the way."""

    def __init__(
        self,
        symbols: TokenSymbols,
        first: Configuration,  # before an answer
        later: Configuration,  # after an item
        *,
        steps: Callable[[Configuration, str], list[Step]],  # where a symbol leads from a configuration
        may_end: Callable[[Configuration], bool],
        is_open: Callable[[Configuration], bool],  # whether a configuration is inside a span
        end: int,
    ) -> None:
        self._symbols, self._first, self._later, self._end = symbols, first, later, end
        self._steps, self._may_end, self._is_open = steps, may_end, is_open

    def read(self, tokens: Iterable[int]) -> tuple[list[Any], list[int]]:
        """Return the events of the items before the first token that does not fit, and the tokens after them.

        An item counts once it is closed, unless the text has fewer occurrences than its number.
        """
        ordinary = list(takewhile(lambda token: token != self._end, tokens))
        before = self._symbols.prefix
        begin = len(before) if before and ordinary[: len(before)] == before else 0
        paths: dict[Configuration, Path] = {self._first: None}
        previous = last = (begin, None)  # where complete items end, and their events
        for position in range(begin, len(ordinary)):
            for symbol in self._symbols.of(ordinary[position]) or "\0":
                paths = self._stepped(paths, symbol)
            if not paths:
                break
            if self._later in paths:
                previous, last = last, (position + 1, paths[self._later])
        else:
            config, path = self._finished(paths)
            if self._may_end(config):
                last = len(ordinary), path
        after = self._symbols.spell(ordinary[last[0] : last[0] + 1]).strip(" ")[:1]
        if after.isdigit() or after == UNKNOWN:  # perhaps a number that the tokenizer cannot write
            last = previous
        return _events_of(last[1]), ordinary[last[0] :]

    def _stepped(self, paths: Mapping[Configuration, Path], symbol: str) -> dict[Configuration, Path]:
        stepped: dict[Configuration, Path] = {}
        for config, path in paths.items():
            for reached, events in self._steps(config, symbol):
                longer = path
                for event in events:
                    longer = (longer, event)
                stepped.setdefault(reached, longer)
        return stepped

    def _finished(self, paths: Mapping[Configuration, Path]) -> tuple[Configuration, Path]:
        """Return a configuration, if possible one that may end an answer, and its path; an open span is closed."""
        config, path = min(paths.items(), key=lambda found: not self._may_end(found[0]))
        return config, (path, DONE) if self._is_open(config) and self._may_end(config) else path


def _events_of(path: Path) -> list[Any]:
    events: list[Any] = []
    while path is not None:
        path, event = path
        events.append(event)
    return events[::-1]


def items_of(events: Iterable[Any], view: View, text: str) -> list[ParsedItem]:
    """Return the completed items of a sequence of events.

    The events of an item are its opening, its places, each call with the symbols of its phrase, the symbols of its
    span, ``DONE``, and the digits of its occurrence.
    """
    raw: list[tuple[str, tuple[str, ...], str, int]] = []
    label, symbols, number = "", "", 0
    places: tuple[str, ...] = ()
    for event in events:
        if isinstance(event, Opened):
            if event.place is not None:
                places = (*places, event.place)
            elif event.label is not None:
                label, places, symbols, number = event.label, (), "", 0
        elif isinstance(event, Said):
            places = (*places[:-1], f"{places[-1]}{'' if ':' in places[-1] else ': '}{event}")
        elif event == DONE:
            raw.append((label, tuple(filter(None, map(_spelled, places))), symbols, 1))
        elif isinstance(event, int):
            number = number * 10 + event
            raw[-1] = (*raw[-1][:3], number)
        else:
            symbols += event
    items = (_item(*item, view, text) for item in raw)
    return [item for item in items if item is not None]


def _spelled(place: str) -> str:
    """Return the name of a place; of a call, whose phrase is in symbols, with the characters that they are.

    A call whose phrase has no visible character has no name.
    """
    module, colon, symbols = place.partition(":")
    if not colon:
        return place
    phrase = phrase_of(symbols.encode("latin-1").decode(errors="replace"))
    return f"{module}: {phrase}" if phrase else ""


def _item(label: str, places: tuple[str, ...], symbols: str, number: int, view: View, text: str) -> ParsedItem | None:
    """Return an item; None if its symbols represent only white space, e.g. a character that the tokenizer drops."""
    if not symbols:
        return ParsedItem(label, places=places)
    start, end = _place(symbols.rstrip(" "), number, view)
    covered = text[start:end]
    span = start + len(covered) - len(covered.lstrip()), end - len(covered) + len(covered.rstrip())
    if not covered.strip():
        return None
    return ParsedItem(label, text[slice(*span)], places, occurrence_of(text, span))


def _place(symbols: str, number: int, view: View) -> Span:
    found = view.symbols.find(symbols)
    for _ in range(number - 1):
        found = view.symbols.find(symbols, found + 1)
    return view.span(found, found + len(symbols))
