"""How readers go through a file: numbered lines of bounded length, and what becomes of a record with an error."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeAlias

from umie.errors import UmieError
from umie.files import bounded_lines

OnError: TypeAlias = Callable[[UmieError], None]

MAX_LINE_BYTES = 1 << 20  # far above any line of the published files (425 bytes in MNRE), far below what hurts


def report(error: UmieError, on_error: OnError | None, place: str = "") -> None:
    """Hand the error of one record to ``on_error``, or raise it where there is none.

    Args:
        error: what is wrong.
        on_error: who collects errors, or None.
        place: file and line or key, put before the message; empty where the message has it.
    """
    placed = UmieError(f"{place}: {error}") if place else error
    if on_error is None:
        raise placed from error
    on_error(placed)


def numbered_lines(path: Path, max_bytes: int = MAX_LINE_BYTES) -> Iterator[tuple[int, str | UmieError]]:
    """Yield the lines of a UTF-8 file with their numbers, or their errors; see ``umie.files.bounded_lines``."""
    return bounded_lines(path, max_bytes, f"the line has more than {max_bytes:,} bytes: part it, or take it out")
