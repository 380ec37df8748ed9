"""How readers go through a file: numbered lines of bounded length, and what becomes of a record with an error."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TypeAlias

from umie.errors import UmieError

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
    """Yield the lines of a UTF-8 file with their numbers, from 1, without line end or byte-order mark.

    A line that is too long or not UTF-8 is yielded as the error that its record deserves, so that what follows it
    can still be read; no more than ``max_bytes`` of a line are ever held.

    Raises:
        UmieError: the file cannot be read.
    """
    try:
        with path.open("rb") as file:
            # one byte more than allowed, so that a line of just the allowed length is told from a longer one
            next_part = partial(file.readline, max_bytes + 2)
            for number, part in enumerate(iter(next_part, b""), start=1):
                if len(part) > max_bytes and len(part.rstrip(b"\r\n")) > max_bytes:
                    while part and not part.endswith(b"\n"):
                        part = next_part()
                    yield number, UmieError(f"the line has more than {max_bytes:,} bytes: part it, or take it out")
                    continue
                try:
                    line = part.decode()
                except UnicodeDecodeError as error:
                    yield number, UmieError(f"not UTF-8 text ({error.reason}); save the file as UTF-8")
                    continue
                line = line.removesuffix("\n").removesuffix("\r")
                yield number, line.removeprefix("\ufeff") if number == 1 else line
    except OSError as error:
        raise UmieError(f"{path}: cannot read: {error.strerror}") from error
    except UmieError:
        raise  # thrown in by the caller
    except ValueError as error:  # a NUL character in the name
        raise UmieError(f"{path}: cannot read: {error}") from error
