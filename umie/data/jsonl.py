"""The library's own format: one JSON object a line, as ``umie.records.write_jsonl`` writes it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from umie.data import registry
from umie.data._text import refuse_regions
from umie.records import Record, read_numbered_jsonl


@registry.register("jsonl")
def read(path: str | Path, *, images: str | Path | None = None, regions: str | Path | None = None) -> Iterator[Record]:
    """Yield the records of a JSONL file, which holds its regions itself; one without a name is named by its line.

    Args:
        path: the file.
        images: the folder of the pictures; by default the folder of the file.
        regions: not accepted.

    Raises:
        UmieError: a line cannot be read as a record, or ``regions`` is given.
    """
    refuse_regions(path, regions, "jsonl")
    for number, record in read_numbered_jsonl(path, images):
        yield record if record.id else replace(record, id=f"{Path(path).name}:{number}")
