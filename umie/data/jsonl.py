"""The format of this library: one JSON object per line, as written by ``umie.records.write_jsonl``."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from umie.data import registry
from umie.data.reading import OnError, OptionalPath, refuse_regions
from umie.records import Record, read_numbered_jsonl


@registry.register("jsonl")
def read(
    path: str | Path, *, images: OptionalPath = None, regions: OptionalPath = None, on_error: OnError | None = None
) -> Iterator[Record]:
    """Yield the records of a JSONL file; a record without an id gets the number of its line.

    ``images`` is by default the directory of the file; ``regions`` are part of the records.
    """
    refuse_regions(path, regions, "jsonl")
    for number, record in read_numbered_jsonl(path, images, on_error):
        yield record if record.id else replace(record, id=f"{Path(path).name}:{number}")
