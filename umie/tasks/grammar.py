"""What a grammar is made of: items as they are written, the items a query admits, and the styles that write them.

One object, a Style, writes the items of an answer, reads them back from any string, and describes the answer's
parts to ``umie.constrained``, which compiles them into a constraint on decoding.
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

_SHORT = 64  # characters
_REGION = re.compile(r"O([1-9][0-9]{0,5})")


@dataclass(frozen=True)
class ParsedItem:
    """One item as written: a label, its filler (None, a string, or a region such as ``O1``), a number."""

    label: str
    filler: str | None = None
    is_region: bool = False
    occurrence: int = 1


@dataclass(frozen=True, kw_only=True)
class AnswerSchema:
    """Which items the answer to one query may hold.

    Args:
        labels: the label schema.
        spans: whether an item may have a span of the text as its filler.
        bare: whether an item may be a label alone.
        num_regions: how many regions an item may name; 0 where none.
        pair: the strings of the head and the tail that the query asks about (MRE).
        at_least_one: whether an empty answer is none.
    """

    labels: tuple[str, ...]
    spans: bool = False
    bare: bool = False
    num_regions: int = 0
    pair: tuple[str, str] | None = None
    at_least_one: bool = False


class Style(ABC):
    """An output style: how items are written as one string, and read back.

    An answer is ``prefix``, the items with ``separator`` between them, ``suffix``. An item is
    ``opening(label)``, a space and a span, ``closing``; or ``region_opening(label)``, a space and the region's
    name, ``closing``; or ``bare(label)``.
    """

    name: ClassVar[str]
    prefix: ClassVar[str] = ""
    separator: ClassVar[str] = " "
    suffix: ClassVar[str] = ""
    closing: ClassVar[str] = ""
    markers: ClassVar[tuple[str, ...]] = ()  # strings that are single tokens, where a tokenizer has them
    escaped: ClassVar[str] = ""  # signs that ``|`` escapes in a span
    is_numbered: ClassVar[bool] = False  # whether a repeated span says which of its occurrences it is

    @abstractmethod
    def opening(self, label: str) -> str:
        """Return what stands before a span, without the space."""

    @abstractmethod
    def bare(self, label: str, pair: tuple[str, str] | None = None) -> str:
        """Return an item that is a label alone; in an answer about a pair, the label between head and tail."""

    @abstractmethod
    def parse(self, output: str, forms: AnswerSchema) -> tuple[list[ParsedItem], int]:
        """Return the well-formed items of any string and the number of ill-formed pieces, in linear time."""

    def region_opening(self, label: str) -> str:
        """Return what stands before the name of a region, without the space."""
        return self.opening(label)

    def linearize(self, items: Iterable[ParsedItem], pair: tuple[str, str] | None = None) -> str:
        """Return the string form of the items, in their order.

        Args:
            items: the items.
            pair: the strings of the head and the tail, where the query asks about a pair.
        """
        return self.prefix + self.separator.join(self._write(item, pair) for item in items) + self.suffix

    def escape(self, string: str, signs: str | None = None) -> str:
        """Return a span as it is written."""
        signs = self.escaped if signs is None else signs
        return "".join("|" + sign if sign in signs else sign for sign in string) if signs else string

    def _write(self, item: ParsedItem, pair: tuple[str, str] | None) -> str:
        if item.filler is None:
            return self.bare(item.label, pair)
        if item.is_region:
            return f"{self.region_opening(item.label)} {item.filler}{self.closing}"
        number = str(item.occurrence) if self.is_numbered and item.occurrence > 1 else ""
        return f"{self.opening(item.label)} {self.escape(item.filler)}{self.closing}{number}"


def with_occurrences(items: Iterable[ParsedItem]) -> Iterator[ParsedItem]:
    """Number the items of a style that does not: the n-th of the same label and span is the n-th occurrence.

    Spans are written by their place in the text, so this is right wherever every occurrence is annotated alike.
    """
    seen: dict[tuple[str, str], int] = {}
    for item in items:
        if item.filler is None or item.is_region:
            yield item
            continue
        key = item.label, item.filler
        seen[key] = seen.get(key, 0) + 1
        yield replace(item, occurrence=seen[key])


def occurrence_of(text: str, span: Span) -> int:
    """Return which occurrence of its own string ``span`` is in ``text``, counted from 1; overlaps count."""
    start, end = span
    surface = text[start:end]
    return 1 + sum(1 for _ in takewhile(lambda found: found < start, _starts(text, surface)))


def locate(text: str, surface: str, occurrence: int) -> Span | None:
    """Return the span of the given occurrence of ``surface``, or None where there is none.

    A string that does not occur as it stands is sought once more without regard to white space, which
    SentencePiece tokenizers do not keep.
    """
    return _places(text).span(surface, occurrence)


class _Places:
    """Where strings occur in a text; each string is sought once, however often it is asked for."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._found: dict[str | tuple[str, ...], tuple[list[Span], Iterator[Span]]] = {}

    def span(self, surface: str, occurrence: int) -> Span | None:
        """Return the place of an occurrence, looking no further than to it."""
        words = surface.split()
        for pattern in dict.fromkeys((surface, surface.strip())):
            if pattern and (span := self._nth(pattern, pattern, occurrence)):
                return span
        return self._nth(tuple(words), r"\s+".join(map(re.escape, words)), occurrence) if words else None

    def _nth(self, key: str | tuple[str, ...], pattern: str, occurrence: int) -> Span | None:
        if key not in self._found:
            self._found[key] = [], self._occurrences(pattern, is_expression=isinstance(key, tuple))
        known, coming = self._found[key]
        known += islice(coming, max(0, occurrence - len(known)))
        return known[occurrence - 1] if occurrence <= len(known) else None

    def _occurrences(self, pattern: str, is_expression: bool) -> Iterator[Span]:
        if is_expression:
            return (match.span() for match in re.finditer(pattern, self._text))
        return ((start, start + len(pattern)) for start in _starts(self._text, pattern))


_places = lru_cache(maxsize=16)(_Places)


def _starts(text: str, surface: str) -> Iterator[int]:
    """Yield where a string occurs in a text, overlaps too, in linear time."""
    if len(surface) <= _SHORT:
        found = text.find(surface)
        while found >= 0:
            yield found
            found = text.find(surface, found + 1)
        return
    # long strings that overlap themselves take find a quadratic time: Knuth, Morris and Pratt (1977)
    borders = [0] * len(surface)
    matched = 0
    for place in range(1, len(surface)):
        while matched and surface[place] != surface[matched]:
            matched = borders[matched - 1]
        matched += surface[place] == surface[matched]
        borders[place] = matched
    matched = 0
    for place, sign in enumerate(text):
        while matched and (matched == len(surface) or sign != surface[matched]):
            matched = borders[matched - 1]
        matched += sign == surface[matched]
        if matched == len(surface):
            yield place + 1 - matched


def region_name(index: int) -> str:
    """Return how region ``index`` (from 0) is called in outputs: ``O1`` for the first."""
    return f"O{index + 1}"


def region_index(name: str) -> int | None:
    """Return the index (from 0) that a region name such as ``O1`` stands for, or None."""
    match = _REGION.fullmatch(name.strip())
    return int(match.group(1)) - 1 if match else None
