"""Offsets that count UTF-16 units or bytes of UTF-8 instead of characters."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, TypeAlias

from umie.errors import UmieError

Span: TypeAlias = tuple[int, int]
Unit = Literal["characters", "utf16", "bytes"]
_ENCODINGS: dict[Unit, tuple[str, int]] = {"utf16": ("utf-16-le", 2), "bytes": ("utf-8", 1)}
_ADVICE = "if the offsets count UTF-16 units, read the file with --format-option offsets=utf16"


def character_span(text: str, span: Span, unit: Unit) -> Span:
    """Return a span that counts ``unit`` of a text as a span of characters.

    Raises:
        UmieError: the span is not inside the text, or cuts a character.
    """
    if unit == "characters":
        return span
    encoding, width = _ENCODINGS[unit]
    data = text.encode(encoding, "surrogatepass")
    start, end = (width * edge for edge in span)
    if not 0 <= start <= end <= len(data):
        raise UmieError(f"span {list(span)} is not inside the text of {len(data) // width} {unit}")
    try:
        first, second = (len(part.decode(encoding, "surrogatepass")) for part in (data[:start], data[:end]))
        data[start:end].decode(encoding)
    except UnicodeDecodeError as error:
        raise UmieError(f"span {list(span)} cuts a character: the offsets do not count {unit}") from error
    return first, second


def advice(text: str, span: Span, expected: object = None) -> str:
    """Return advice for a span that does not fit, if it may count UTF-16 units; ``expected`` is its known text."""
    if not _is_wide(text):
        return ""
    if isinstance(expected, str):
        try:
            if text[slice(*character_span(text, span, "utf16"))] != expected:
                return ""
        except UmieError:
            return ""
    return f"; {_ADVICE}"


def seem_utf16(text: str, spans: Iterable[Span]) -> bool:
    """Return whether spans of characters cut words, and none does if they are read as UTF-16 units."""
    spans = list(spans) if _is_wide(text) else []
    if not any(_cuts_word(text, span) for span in spans):
        return False
    try:
        return not any(_cuts_word(text, character_span(text, span, "utf16")) for span in spans)
    except UmieError:
        return False


def _is_wide(text: str) -> bool:
    """Return whether a text has characters of two UTF-16 units, such as emoji."""
    return not text.isascii() and max(text) > "\uffff"


def _cuts_word(text: str, span: Span) -> bool:
    return any(0 < edge < len(text) and all(map(_is_letter, text[edge - 1 : edge + 1])) for edge in span)


def _is_letter(character: str) -> bool:
    return character.isalnum() and character < _WITHOUT_SPACES


_WITHOUT_SPACES = "\u2e80"  # from here on, mostly characters of scripts without spaces between words
