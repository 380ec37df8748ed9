"""The library's own format: one JSON object a line, as ``umie.records.write_jsonl`` writes it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from umie.data import registry
from umie.data.reading import OnError
from umie.data.text import refuse_regions
from umie.records import Record, read_numbered_jsonl


@registry.register("jsonl")
def read(
    path: str | Path,
    *,
    images: str | Path | None = None,
    regions: str | Path | None = None,
    on_error: OnError | None = None,
) -> Iterator[Record]:
    """Yield the records of a JSONL file, which holds its regions itself; one without a name is named by its line.

    Source, license and label schema are what the line says.

    Args:
        path: the file.
        images: the folder of the images; by default the folder of the file.
        regions: not accepted.
        on_error: called with every error of a line that cannot be read, which is passed over.

    Raises:
        UmieError: the file cannot be read, or ``regions`` is given; without ``on_error``, a line cannot be read as
            a record.
    """
    refuse_regions(path, regions, "jsonl")
    for number, record in read_numbered_jsonl(path, images, on_error):
        yield record if record.id else replace(record, id=f"{Path(path).name}:{number}")
