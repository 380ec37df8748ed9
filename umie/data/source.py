"""A data file together with its format and the paths needed to read it."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from umie import data
from umie.errors import UmieError
from umie.records import Record
from umie.records.jsonl import read_numbered_jsonl
from umie.records.no_relation import is_chosen, renamed

JSONL = "jsonl"
T = TypeVar("T", bound=tuple[Any, ...])


@dataclass(frozen=True)
class Source:
    """A file of records, in any format that ``umie.data`` reads; see ``umie.data.read``."""

    path: Path
    format: str = JSONL
    images: Path | None = None
    regions: Path | None = None
    options: Mapping[str, Any] = field(default_factory=dict)

    def records(self, on_error: Callable[[UmieError], None] | None = None) -> Iterator[Record]:
        """Return an iterator over the records; see ``umie.data.read``."""
        self.check()
        paths = {"images": self.images, "regions": self.regions}
        return data.read(self.format, self.path, **paths, on_error=on_error, **self.options)

    def numbered(self, on_error: Callable[[UmieError], None] | None = None) -> Iterator[tuple[int, Record]]:
        """Yield the records with their numbers, from 1: of the line in JSONL, of the record in other formats.

        For JSONL, every error of a malformed line is reported, and records without an id are kept as they are.
        """
        self.check()
        if self._has_lines():
            for number, record in read_numbered_jsonl(self.path, self.images, on_error):
                yield number, renamed(record, is_chosen)
        else:
            yield from enumerate(self.records(on_error), start=1)

    def place(self, number: int) -> str:
        """Return the location of a record by its number, for messages."""
        return f"{self.path}:{number}" if self._has_lines() else f"{self.path}: record {number}"

    def _has_lines(self) -> bool:
        return self.format == JSONL and self.regions is None and not self.options

    def named(self) -> Iterator[Record]:
        """Yield the records with an id each: their own, or the name of the file and their number."""
        for number, record in enumerate(self.records(), start=1):
            yield record if record.id else replace(record, id=f"{self.path.name}:{number}")

    def check(self) -> None:
        """Raise UmieError if the image directory does not exist or the path is a directory."""
        if self.images is not None and not self.images.is_dir():
            raise UmieError(f"{self.images}: no such directory; use an existing one as images, or leave it out")
        if self.path.is_dir():
            raise UmieError(f"{self.path}: is a directory; use the file of one split")


def draw_records(
    source: Source, number: int, seed: int = 0, *, progress: Callable[[], None] = lambda: None
) -> list[tuple[int, Record]]:
    """Return ``number`` random records of a file, or all of a shorter one, with their numbers, in the file's order.

    Source: reservoir sampling, algorithm R (Vitter 1985): one pass, and memory for the sample only. ``progress`` is
    called once per record.
    """
    return draw_some(source.numbered(), number, seed, progress=progress)


def draw_some(items: Iterable[T], number: int, seed: int, *, progress: Callable[[], None] = lambda: None) -> list[T]:
    """Return ``number`` random items that begin with their number, or all of fewer, in ascending order."""
    generator = random.Random(seed)
    drawn: list[T] = []
    for position, item in enumerate(items):
        progress()
        slot = position if position < number else generator.randint(0, position)
        if slot < number:
            drawn[slot : slot + 1] = [item]
    return sorted(drawn, key=lambda item: item[0])
