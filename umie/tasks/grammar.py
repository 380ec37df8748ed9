"""What a grammar is made of: items as they are written, the items a query admits, and the styles that write them.

One object, a Style, writes the items of an answer, reads them back from any string, and describes the answer's
parts to ``umie.constrained``, which compiles them into a constraint on decoding.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import ClassVar

from umie.records import Span

_REGION = re.compile(r"O([1-9][0-9]{0,5})")


@dataclass(frozen=True)
class RawItem:
    """One item as written: a label, its filler (None, a string, or a region such as ``O1``), a number."""

    label: str
    filler: str | None = None
    is_region: bool = False
    occurrence: int = 1


@dataclass(frozen=True, kw_only=True)
class Forms:
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
    def parse(self, output: str, forms: Forms) -> tuple[list[RawItem], int]:
        """Return the well-formed items of any string and the number of ill-formed pieces, in linear time."""

    def region_opening(self, label: str) -> str:
        """Return what stands before the name of a region, without the space."""
        return self.opening(label)

    def linearise(self, items: Iterable[RawItem], pair: tuple[str, str] | None = None) -> str:
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

    def _write(self, item: RawItem, pair: tuple[str, str] | None) -> str:
        if item.filler is None:
            return self.bare(item.label, pair)
        if item.is_region:
            return f"{self.region_opening(item.label)} {item.filler}{self.closing}"
        number = str(item.occurrence) if self.is_numbered and item.occurrence > 1 else ""
        return f"{self.opening(item.label)} {self.escape(item.filler)}{self.closing}{number}"


def with_occurrences(items: Iterable[RawItem]) -> Iterator[RawItem]:
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
    number = 1
    found = text.find(surface)
    while 0 <= found < start:
        number += 1
        found = text.find(surface, found + 1)
    return number


def locate(text: str, surface: str, occurrence: int) -> Span | None:
    """Return the span of the given occurrence of ``surface``, or None where there is none.

    A string that does not occur as it stands is sought once more without regard to white space, which
    SentencePiece tokenizers do not keep.
    """
    for pattern in (surface, surface.strip()):
        if pattern and (span := _find(text, pattern, occurrence)):
            return span
    words = surface.split()
    if not words:
        return None
    matches = re.finditer(r"\s+".join(map(re.escape, words)), text)
    for number, match in enumerate(matches, start=1):
        if number == occurrence:
            return match.span()
    return None


def region_name(index: int) -> str:
    """Return how region ``index`` (from 0) is called in outputs: ``O1`` for the first."""
    return f"O{index + 1}"


def region_index(name: str) -> int | None:
    """Return the index (from 0) that a region name such as ``O1`` stands for, or None."""
    match = _REGION.fullmatch(name.strip())
    return int(match.group(1)) - 1 if match else None


def _find(text: str, surface: str, occurrence: int) -> Span | None:
    found = text.find(surface)
    while found >= 0 and occurrence > 1:
        occurrence -= 1
        found = text.find(surface, found + 1)
    return (found, found + len(surface)) if found >= 0 else None
