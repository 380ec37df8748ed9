"""The lines of the file to extract from: records, keys that are not theirs, and lines that are no records."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from umie.errors import UmieError
from umie.files import bounded_lines, json_text
from umie.records import MEDIA, Record
from umie.records.jsonl import KEYS, parse_line, record_from_json

_KNOWN = {*KEYS, "licence"}  # the old name of the key license is still read


@dataclass(frozen=True)
class SourceLine:
    """A line of the file that is not blank: either a record, or an error."""

    number: int  # from 1
    record: Record | None = None
    error: UmieError | None = None
    further: Mapping[str, Any] = field(default_factory=dict)  # the keys that are not those of a record
    content: str | None = None  # None for a line that is not text
    is_empty: bool = False  # whether there is neither a text nor a medium


def read_items(source: Path, images: Path | None) -> Iterator[SourceLine]:
    """Yield the lines of a JSONL file, except for blank ones; images are in ``images`` or next to the file.

    Raises:
        UmieError: the file cannot be read.
    """
    folder = str(source.parent if images is None else images)
    for number, line in bounded_lines(source):
        if isinstance(line, UmieError):
            yield SourceLine(number, error=line)
        elif line.strip():
            yield _item(number, line, folder)


def with_further_keys(line: str, further: Mapping[str, Any]) -> str:
    """Return the JSON object of a line with further keys."""
    if not further:
        return line
    written = json_text(further)
    try:
        written.encode()
    except UnicodeEncodeError:  # an unpaired surrogate, which only an escape can express
        written = json_text(further, ensure_ascii=True)
    return f"{line[:-1]}, {written[1:]}"


def _item(number: int, line: str, folder: str) -> SourceLine:
    further: dict[str, Any] = {}
    try:
        data = parse_line(line)
        if isinstance(data, dict):
            further = {key: value for key, value in data.items() if key not in _KNOWN}
            text, has_medium = data.get("text"), any(map(data.get, (*MEDIA, "images")))
            if isinstance(text, str) and not text.strip() and not has_medium:
                return SourceLine(number, error=UmieError("the text is empty"), content=line, is_empty=True)
            if further:
                line_of_record = json.dumps({key: value for key, value in data.items() if key in _KNOWN})
        record = record_from_json(line_of_record if further else line, folder)
        for medium, index in record.numbered_media:
            record.path(medium, index)  # raises for a path outside of the directory
    except UmieError as error:
        return SourceLine(number, error=error, content=line)
    return SourceLine(number, record, further=further, content=line)
