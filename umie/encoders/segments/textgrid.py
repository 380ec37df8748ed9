"""Praat's TextGrid files: tiers of intervals with texts."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from umie.errors import UmieError, at
from umie.files import decode_utf8, read_data

Interval = tuple[float, float, str]  # start and end in seconds, text

# what is read is not given back, so that the time is linear in any text
_TOKEN = re.compile(r'"((?:[^"]|"")*+)"|(?<!\S)([-+]?(?:\d++(?:\.\d*+)?+|\.\d++)(?:[eE][-+]?\d++)?+)(?!\S)')


def read_textgrid(path: Path) -> dict[str, list[Interval]]:
    """Return the intervals of each interval tier by its name, in the order of the file.

    Only quoted texts and free-standing numbers count, so that Praat's long and short text files are read alike. Tiers
    of points are skipped, and tiers of one name are joined.

    Source: "TextGrid file formats" in Praat's manual.

    Raises:
        UmieError: the file cannot be read, or is not a text file of this kind.
    """
    try:
        data = read_data(path)
    except OSError as error:
        raise UmieError(f"{path}: cannot read: {error.strerror}") from error
    with at(str(path)):
        tokens = _tokens(data)
        try:
            return _tiers(tokens)
        except (StopIteration, ValueError, OverflowError) as error:  # another kind of token, or none
            raise UmieError("not a whole TextGrid: save it as a text file in Praat") from error


def _tokens(data: bytes) -> Iterator[str | float]:
    """Yield the texts and numbers of a file, UTF-8 or UTF-16, with those of its header."""
    is_wide = data[:2] in (b"\xff\xfe", b"\xfe\xff")
    text = data.decode("utf-16", errors="replace") if is_wide else decode_utf8(data)
    for match in _TOKEN.finditer(text):
        yield float(match[2]) if match[1] is None else match[1].replace('""', '"')


def _tiers(tokens: Iterator[str | float]) -> dict[str, list[Interval]]:
    def string() -> str:
        token = next(tokens)
        if not isinstance(token, str):
            raise ValueError
        return token

    def number() -> float:
        token = next(tokens)
        if not isinstance(token, float):
            raise ValueError
        return token

    if (string(), string()) != ("ooTextFile", "TextGrid"):
        raise ValueError
    number(), number()  # the times of the whole
    tiers: dict[str, list[Interval]] = {}
    for _ in range(int(number())):
        kind, name = string(), string()
        number(), number()
        for _ in range(int(number())):
            if kind == "IntervalTier":
                tiers.setdefault(name, []).append((number(), number(), string()))
            else:
                number(), string()
    return tiers
