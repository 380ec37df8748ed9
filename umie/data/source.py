"""A data file with what is needed to read it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from umie import data
from umie.errors import UmieError
from umie.records import Record
from umie.records.jsonl import read_numbered_jsonl

JSONL = "jsonl"


@dataclass(frozen=True)
class Source:
    """One file of records, in any format that ``umie.data`` reads.

    Args:
        path: the file.
        format: its format.
        images: the folder of the images; without it only JSONL names images, beside the file.
        regions: what annotates the regions, for formats that keep it apart.
        mapping: the file that maps verbs and roles to event types, for ``swig``; by default beside the file.
    """

    path: Path
    format: str = JSONL
    images: Path | None = None
    regions: Path | None = None
    mapping: Path | None = None

    def records(self, on_error: Callable[[UmieError], None] | None = None) -> Iterator[Record]:
        """Yield the records; see ``umie.data.read``."""
        self.check()
        options = {} if self.mapping is None else {"mapping": self.mapping}
        return data.read(self.format, self.path, images=self.images, regions=self.regions, on_error=on_error, **options)

    def numbered(self, on_error: Callable[[UmieError], None] | None = None) -> Iterator[tuple[int, Record]]:
        """Yield the records with their numbers, from 1: of the line in JSONL, of the record elsewhere.

        JSONL gives each error of a bad line, not just the first, and leaves a record without id as it is.
        """
        self.check()
        if self.format == JSONL and self.regions is None:
            yield from read_numbered_jsonl(self.path, self.images, on_error)
        else:
            yield from enumerate(self.records(on_error), start=1)

    def place(self, number: int) -> str:
        """Return how a message names a record by its number."""
        return f"{self.path}:{number}" if self.format == JSONL else f"{self.path}: record {number}"

    def named(self) -> Iterator[Record]:
        """Yield the records, each with an id: its own, or the file's name and its number."""
        for number, record in enumerate(self.records(), start=1):
            yield record if record.id else replace(record, id=f"{self.path.name}:{number}")

    def check(self) -> None:
        """Raise UmieError for a folder that is not there or a file that is none, before anything is read."""
        if self.images is not None and not self.images.is_dir():
            raise UmieError(f"{self.images}: no such folder; give --images an existing one, or leave it out")
        if self.mapping is not None and self.format != "swig":
            raise UmieError(f"--mapping {self.mapping}: only the format 'swig' takes one; leave it out")
        if self.path.is_dir():
            raise UmieError(f"{self.path}: is a folder; give one split file")
