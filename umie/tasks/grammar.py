"""The `structured` output style: a lossless string form of extracted items.

One item is ``[label: span]``, ``[label = O1]`` for a region, or ``[label]`` alone. Items stand in a row,
parted by a space. ``|`` escapes brackets and itself, in labels also ``:`` and ``=``. A span that is not the
first occurrence of its string carries its number behind the bracket: ``[location: NY]2``.
The signs are ones that the SentencePiece vocabulary of T5 holds (it has no braces and no backslash).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from umie.records import Span

_REGION = re.compile(r"O([1-9][0-9]{0,5})")
_MAX_NUMBER_DIGITS = 6


@dataclass(frozen=True)
class RawItem:
    """One item as written: a label, its filler (None, a string, or a region such as ``O1``), a number."""

    label: str
    filler: str | None = None
    is_region: bool = False
    occurrence: int = 1


def linearise(items: Iterable[RawItem]) -> str:
    """Return the string form of the items, in their order."""
    return " ".join(_linearise(item) for item in items)


def parse(output: str) -> tuple[list[RawItem], int]:
    """Return the well-formed items of any string and the number of ill-formed pieces, in linear time."""
    items: list[RawItem] = []
    dropped = 0
    position = 0
    while position < len(output):
        start = output.find("[", position)
        between = output[position : start if start >= 0 else len(output)]
        dropped += bool(between.strip())
        if start < 0:
            break
        item, position = _parse_item(output, start + 1)
        if item is None:
            dropped += 1
        else:
            items.append(item)
    return items, dropped


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


def _escape(string: str, signs: str) -> str:
    return "".join("|" + sign if sign in signs else sign for sign in string)


def _linearise(item: RawItem) -> str:
    label = _escape(item.label, "|[]:=")
    if item.filler is None:
        return f"[{label}]"
    if item.is_region:
        return f"[{label} = {item.filler}]"
    number = "" if item.occurrence == 1 else str(item.occurrence)
    return f"[{label}: {_escape(item.filler, '|[]')}]{number}"


def _parse_item(output: str, position: int) -> tuple[RawItem | None, int]:
    """Read one item behind its opening bracket; return it, or None, and where to go on."""
    label: str | None = None
    is_region = False
    characters: list[str] = []
    while position < len(output):
        sign = output[position]
        if sign == "[":
            return None, position
        position += 1
        if sign == "]":
            break
        if sign == "|" and position < len(output):
            characters.append(output[position])
            position += 1
        elif label is None and sign in ":=":
            label = "".join(characters).strip()
            is_region = sign == "="
            characters = []
        else:
            characters.append(sign)
    else:
        return None, position
    end = position
    while end < len(output) and output[end].isascii() and output[end].isdigit():
        end += 1
    number = output[position:end]
    content = "".join(characters)
    if label is None:
        item = RawItem(content.strip())
    else:
        item = RawItem(label, content.removeprefix(" "), is_region, int(number[:_MAX_NUMBER_DIGITS] or 1))
    sound = item.label and len(number) <= _MAX_NUMBER_DIGITS and item.occurrence > 0
    return (item if sound else None), end
