"""Helpers of all readers: numbered lines of bounded length, and reporting of errors."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeAlias

from umie.errors import UmieError
from umie.files import bounded_lines

OnError: TypeAlias = Callable[[UmieError], None]

MAX_LINE_BYTES = 1 << 20  # the longest line of the published files has 425 bytes (MNRE)


def report(error: UmieError, on_error: OnError | None, place: str = "") -> None:
    """Pass the error of a record to ``on_error``, or raise it if there is no ``on_error``.

    Args:
        error: the error.
        on_error: called with the error, or None.
        place: file and line or key, prepended to the message; empty if the message already begins with it.
    """
    placed = UmieError(f"{place}: {error}") if place else error
    if on_error is None:
        raise placed from error
    on_error(placed)


def numbered_lines(path: Path, max_bytes: int = MAX_LINE_BYTES) -> Iterator[tuple[int, str | UmieError]]:
    """Yield the numbered lines of a UTF-8 file, or their errors; see ``umie.files.bounded_lines``."""
    return bounded_lines(path, max_bytes, f"the line has more than {max_bytes:,} bytes: split or remove it")
