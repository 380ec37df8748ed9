"""The string form of answers: written items, the schema of an answer, and output styles.

A Style writes the items of an answer, parses them from any string, and describes the parts of an answer to
``umie.constrained``, which compiles them into a constraint on decoding.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import islice, takewhile
from typing import ClassVar

from umie.records import Span


@dataclass(frozen=True)
class ParsedItem:
    """A written item: a label, the string of its span, the names of places that show it, and an occurrence number.

    It may have a span, places (regions ``O1``, tracks ``V1``, segments ``S1``), both, or only a label.
    """

    label: str
    filler: str | None = None
    places: tuple[str, ...] = ()
    occurrence: int = 1


@dataclass(frozen=True, kw_only=True)
class AnswerSchema:
    """The items that the answer to a query may contain."""

    labels: tuple[str, ...]
    spans: bool = False  # whether the filler of an item may be a span of the text
    bare: bool = False  # whether an item may be a label without a filler
    places: tuple[str, ...] = ()  # the names of the places that items may name
    placed_labels: tuple[str, ...] = ()  # that an item may have with a place and no span; others only in such items
    grounded: bool = False  # whether items with a span may name places, and items may name several
    pair: tuple[str, str] | None = None  # the strings of head and tail of the query (MRE)
    at_least_one: bool = False  # whether an empty answer is invalid, and an item without places is the first

    @property
    def names(self) -> tuple[str, ...]:
        """All labels: those of every item, then those only of items with places."""
        return tuple(dict.fromkeys((*self.labels, *self.placed_labels)))


class Style(ABC):
    """An output style: writes items as a string and parses them.

    An answer consists of ``prefix``, the items joined by ``separator``, and ``suffix``. An item is
    ``opening(label)``, a space, a span and ``closing``; or ``place_opening(label)``, a space, the name of a place and
    ``closing``; or ``bare(label)``. A style with a ``span_opening`` also writes ``place_opening(label)``, the names of
    places, each after a space, ``span_opening``, a space, a span and ``closing``.
    """

    name: ClassVar[str]
    prefix: ClassVar[str] = ""
    separator: ClassVar[str] = " "
    suffix: ClassVar[str] = ""
    closing: ClassVar[str] = ""  # the end of an item with a filler
    markers: ClassVar[tuple[str, ...]] = ()  # strings that are written as single tokens if the tokenizer has them
    escaped: ClassVar[str] = ""  # characters that are escaped by ``|`` in a span
    is_numbered: ClassVar[bool] = False  # whether a repeated span is written with its occurrence number
    span_opening: ClassVar[str | None] = None  # the string between places and a span; None if both cannot be written
    calls: ClassVar[tuple[str, str, str] | None] = None
    """The strings before a module, between it and a phrase, and after the phrase, if places are called for by phrases.

    The names of places are then calls; see ``umie.tasks.calls``.
    """

    @abstractmethod
    def opening(self, label: str) -> str:
        """Return the string before a span, without the space."""

    @abstractmethod
    def bare(self, label: str, pair: tuple[str, str] | None = None) -> str:
        """Return an item without a filler; for a pair, styles may write the label between head and tail."""

    @abstractmethod
    def parse(self, output: str, schema: AnswerSchema) -> tuple[list[ParsedItem], int]:
        """Return the well-formed items of any string and the number of malformed parts, in linear time."""

    def place_opening(self, label: str) -> str:
        """Return the string before the name of a place, without the space."""
        return self.opening(label)

    def linearize(self, items: Iterable[ParsedItem], pair: tuple[str, str] | None = None) -> str:
        """Return the answer with the items in their order; ``pair`` has head and tail if the query asks about them."""
        return self.prefix + self.separator.join(self._write(item, pair) for item in items) + self.suffix

    def escape(self, string: str, special: str | None = None) -> str:
        """Return a string with ``|`` before special characters, by default those of a span."""
        special = self.escaped if special is None else special
        return "".join(f"|{char}" if char in special else char for char in string) if special else string

    def _write(self, item: ParsedItem, pair: tuple[str, str] | None) -> str:
        names = " ".join(map(self._place, item.places))
        places = f"{self.place_opening(item.label)} {names}" if item.places else ""
        if item.filler is None:
            return f"{places}{self.closing}" if places else self.bare(item.label, pair)
        number = str(item.occurrence) if self.is_numbered and item.occurrence > 1 else ""
        opening = f"{places}{self.span_opening}" if places else self.opening(item.label)
        return f"{opening} {self.escape(item.filler)}{self.closing}{number}"

    def _place(self, name: str) -> str:
        """Return the written form of a place: its name, or a call."""
        if self.calls is None:
            return name
        module, _, phrase = name.partition(": ")
        before, between, after = self.calls
        return f"{before}{module}{between}{phrase}{after}"


def with_occurrences(items: Iterable[ParsedItem]) -> Iterator[ParsedItem]:
    """Number the items of a style without numbers: the n-th item of a label and string is the n-th occurrence.

    This is correct if all occurrences have the same annotation, because spans are written in the order of the text.
    """
    seen: dict[tuple[str, str], int] = {}
    for item in items:
        if item.filler is None:
            yield item
            continue
        key = item.label, item.filler
        seen[key] = seen.get(key, 0) + 1
        yield replace(item, occurrence=seen[key])


def occurrence_of(text: str, span: Span) -> int:
    """Return the number, from 1, of the occurrence of its string that ``span`` is; overlapping occurrences count."""
    start, end = span
    surface = text[start:end]
    return 1 + sum(1 for _ in takewhile(lambda found: found < start, _starts(text, surface)))


def locate(text: str, surface: str, occurrence: int) -> Span | None:
    """Return the span of the given occurrence of ``surface`` in ``text``, or None if there is none.

    If the exact string does not occur, differences in whitespace are ignored, because SentencePiece tokenizers do not
    preserve whitespace.
    """
    return _places(text).span(surface, occurrence)


class _Places:
    """Occurrences of strings in a text; each string is searched only once."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._found: dict[str | tuple[str, ...], tuple[list[Span], Iterator[Span]]] = {}

    def span(self, surface: str, occurrence: int) -> Span | None:
        """Return the span of an occurrence, searching no further than needed."""
        words = surface.split()
        for pattern in dict.fromkeys((surface, surface.strip())):
            if pattern and (span := self._nth(pattern, pattern, occurrence)):
                return span
        return self._nth(tuple(words), r"\s+".join(map(re.escape, words)), occurrence) if words else None

    def _nth(self, key: str | tuple[str, ...], pattern: str, occurrence: int) -> Span | None:
        if key not in self._found:
            self._found[key] = [], self._occurrences(pattern, is_expression=isinstance(key, tuple))
        known, remaining = self._found[key]
        known += islice(remaining, max(0, occurrence - len(known)))
        return known[occurrence - 1] if occurrence <= len(known) else None

    def _occurrences(self, pattern: str, is_expression: bool) -> Iterator[Span]:
        if is_expression:
            return (match.span() for match in re.finditer(pattern, self._text))
        return ((start, start + len(pattern)) for start in _starts(self._text, pattern))


_places = lru_cache(maxsize=16)(_Places)


def _starts(text: str, surface: str) -> Iterator[int]:
    """Yield the start of every occurrence of a string in a text, including overlapping ones."""
    start = text.find(surface)
    while start >= 0:
        yield start
        start = text.find(surface, start + 1)
