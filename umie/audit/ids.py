"""Finding repeated ids without holding them in memory."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from typing import NamedTuple

_CACHE_KIB = 2048
_BATCH = 2000


class Repeated(NamedTuple):
    """An id that stands at a place although it stood at an earlier one already."""

    id: str
    place: int
    first: int


class IdLog:
    """Takes every id with the number of its place, and gives those that repeat.

    The ids lie in a private database on disk that SQLite deletes by itself; sorting spills to disk as well, so
    memory stays within its cache of 2 MiB however many there are, and no two ids are ever confused, as hashes
    might be.
    """

    def __init__(self) -> None:
        self._database = sqlite3.connect("")  # a temporary file, see sqlite.org/inmemorydb.html
        self._database.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
        self._database.execute("PRAGMA temp_store = FILE")
        self._database.execute("PRAGMA journal_mode = OFF")  # nothing is ever rolled back
        self._database.execute("CREATE TABLE ids (id BLOB, place INTEGER)")
        self._waiting: list[tuple[bytes, int]] = []

    def add(self, identifier: str, place: int) -> None:
        """Take one id; places must grow."""
        self._waiting.append((identifier.encode("utf-8", "surrogatepass"), place))
        if len(self._waiting) >= _BATCH:
            self._flush()

    def repeated(self) -> Iterator[Repeated]:
        """Yield every id that came before, ordered by id, then by place."""
        self._flush()
        first: tuple[bytes, int] | None = None
        with closing(self._database.execute("SELECT id, place FROM ids ORDER BY id, place")) as rows:
            for identifier, place in rows:
                if first is not None and identifier == first[0]:
                    yield Repeated(identifier.decode("utf-8", "surrogatepass"), place, first[1])
                else:
                    first = identifier, place

    def close(self) -> None:
        """Give the disk space back."""
        self._database.close()

    def _flush(self) -> None:
        self._database.executemany("INSERT INTO ids VALUES (?, ?)", self._waiting)
        self._waiting.clear()
