"""The lines or rows of the file to extract from: records, keys that are not theirs, and lines that are no records."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from umie.errors import UmieError, at
from umie.extraction.rows import (
    ENDINGS,
    check_columns,
    columns_of,
    other_columns,
    plain,
    read_rows,
    record_of_row,
    value_of,
)
from umie.files import bounded_lines, json_text, stream_lines
from umie.records import MEDIA, Record
from umie.records.jsonl import KEYS, parse_line, record_from_json

DETAILS = {"box", "boxes", "pixels", "seconds", "paths"}
"""The keys of items that ``Extraction.to_json`` adds to those of a record."""
_JSON_ENDINGS = (".jsonl", ".ndjson", ".json", "")
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


def read_items(source: Path, images: Path | None, columns: Mapping[str, str] | None = None) -> Iterator[SourceLine]:
    """Yield the lines of a JSONL, CSV, TSV, Parquet or text file, except for blank ones.

    Args:
        source: the file.
        images: the folder of the media; by default that of the file.
        columns: of a table, the columns of the fields of a record; see ``records_from_rows``.

    Raises:
        UmieError: the file cannot be read.
    """
    folder = str(source.parent if images is None else images)
    if source.suffix.lower() in ENDINGS:
        names = columns_of(columns)
        is_first = True
        for number, row in read_rows(source):
            if is_first and not isinstance(row, UmieError):
                is_first = False
                with at(str(source)):  # whatever is done with bad lines
                    check_columns(row, names)
            yield SourceLine(number, error=row) if isinstance(row, UmieError) else _row_item(number, row, names, folder)
        return
    if columns:
        raise UmieError(f"{source}: only tables have columns ({', '.join(ENDINGS)})")
    if source.suffix.lower() == ".txt":
        yield from _text_items(source, folder)
        return
    if source.suffix.lower() not in _JSON_ENDINGS:
        known = ", ".join((*_JSON_ENDINGS[:-1], *ENDINGS, ".txt"))
        raise UmieError(f"{source}: files with the ending {source.suffix} cannot be read: use one of {known}")
    yield from _items(bounded_lines(source), folder)


def stream_items(file: IO[bytes], name: str, images: Path) -> Iterator[SourceLine]:
    """Yield the lines of an open file as ``read_items`` does, each as soon as it is there.

    Raises:
        UmieError: the file cannot be read.
    """
    try:
        yield from _items(stream_lines(file, name), str(images))
    except OSError as error:
        raise UmieError(f"{name}: cannot be read: {error.strerror}") from error


def _items(lines: Iterable[tuple[int, str | UmieError]], folder: str) -> Iterator[SourceLine]:
    for number, line in lines:
        if isinstance(line, UmieError):
            yield SourceLine(number, error=line)
        elif line.strip():
            yield _item(number, line, folder)


def _text_items(source: Path, folder: str) -> Iterator[SourceLine]:
    columns, is_first = columns_of(None), True
    for number, line in bounded_lines(source):
        if isinstance(line, UmieError):
            yield SourceLine(number, error=line)
        elif line.strip():
            if is_first and _is_record(line):
                raise UmieError(f"{source}:{number}: the line is a record as JSON, not a text: name the file .jsonl")
            is_first = False
            yield _row_item(number, {"text": line}, columns, folder)


def _is_record(line: str) -> bool:
    try:
        data = json.loads(line)
    except ValueError:
        return False
    return isinstance(data, dict) and "text" in data


def read_details(source: Path, images: Path | None) -> Iterator[tuple[int, Record]]:
    """Yield the lines of a file of records, extractions or their details, with their numbers.

    Raises:
        UmieError: the file cannot be read, or a line is invalid.
    """
    folder = str(source.parent if images is None else images)
    for number, line in bounded_lines(source):
        with at(f"{source}:{number}"):
            if isinstance(line, UmieError):
                raise line
            if line.strip():
                data = parse_line(line)
                if not isinstance(data, dict):
                    raise UmieError("expected an object")
                known = {key: value for key, value in data.items() if key in _KNOWN}
                known |= {
                    key: _without_details(known[key]) for key in ("entities", "relations", "events") if key in known
                }
                yield number, record_from_json(json.dumps(known), folder)


def _without_details(value: Any) -> Any:
    if isinstance(value, list):
        return [_without_details(one) for one in value]
    if isinstance(value, dict):
        return {key: _without_details(one) for key, one in value.items() if key not in DETAILS}
    return value


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


def _row_item(number: int, row: dict[str, Any], columns: Mapping[str, str], folder: str) -> SourceLine:
    further = other_columns(row, columns)
    content = json_text(further | {name: plain(row[name]) for name in columns.values() if name in row})
    text = value_of(row, columns["text"]) if columns["text"] in row else "no column"
    has_text = bool(text) and not (isinstance(text, str) and text.isspace())
    if not has_text and not any(value_of(row, columns[medium]) for medium in MEDIA):
        return SourceLine(number, error=UmieError("the text is empty"), content=content, is_empty=True)
    try:
        record = record_of_row(row, columns, folder)
        for medium, index in record.numbered_media:
            if isinstance(record.of(medium)[index], str):
                record.path(medium, index)  # raises for a path outside of the directory
    except UmieError as error:
        return SourceLine(number, error=error, content=content)
    return SourceLine(number, record, further=further, content=content)


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
