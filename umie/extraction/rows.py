"""Rows of tables as records: CSV, TSV and Parquet files, data sets, data frames."""

from __future__ import annotations

import csv
import io
import numbers
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import IO, Any

from PIL import Image

from umie.errors import UmieError, at, check_keys, check_kind, import_extra, shown
from umie.files import MAX_LINE, check_content, open_regular, stream_lines
from umie.images import limited_pixels, open_format
from umie.records import MEDIA, Record
from umie.records.jsonl import KEYS

ENDINGS = (".csv", ".tsv", ".parquet")
FIELDS = ("text", "image", "audio", "video", "id")
"""The fields of a record that a column can have."""
_BATCH = 64  # rows of a Parquet file in memory, which may contain images


def records_from_rows(
    rows: Iterable[Mapping[str, Any]],
    *,
    columns: Mapping[str, str] | None = None,
    images: str | Path | None = None,
    on_bad: Callable[[int, UmieError], None] | None = None,
) -> Iterator[Record]:
    """Yield a record for each row of a table, e.g. of ``datasets.Dataset``, ``csv.DictReader`` or a list of dicts.

        extractor.extract_many(umie.extraction.records_from_rows(dataset, columns={"text": "tweet"}))

    Args:
        rows: a mapping for each record, or a data frame of pandas. The ``image`` is a PIL image, the bytes of an image
            file, a path, or a mapping with ``bytes`` or ``path``, as data sets with undecoded images have; ``audio``
            and ``video`` are paths. Missing values are None or NaN.
        columns: the column of a field of the record (``text``, ``image``, ``audio``, ``video``, ``id``), where it has
            another name.
        images: the folder of the media.
        on_bad: called with the number of a row, from 1, that cannot be read, and its error; such rows are then left
            out. A column for ``id`` tells the records that remain apart.

    Raises:
        UmieError: a column is unknown or has a value of another kind; the message has the number of the row, from 1.
    """
    names = columns_of(columns)
    frame: Any = rows
    if hasattr(rows, "itertuples"):  # a data frame yields its column names
        rows = (dict(zip(frame.columns, values, strict=True)) for values in frame.itertuples(index=False, name=None))
    for number, row in enumerate(rows, start=1):
        try:
            with at(f"row {number}"):
                check_kind("a row", row, Mapping, "pass mappings of column names to values")
                check_columns(row, names)
                record = record_of_row(row, names, None if images is None else str(images))
        except UmieError as error:
            if on_bad is None:
                raise
            on_bad(number, error)
        else:
            yield record


def columns_of(given: Mapping[str, str] | None) -> dict[str, str]:
    """Return the column of each field; raise UmieError for an unknown field."""
    check_kind("columns", given, Mapping | None, "pass the name of the column of each field, e.g. {'text': 'tweet'}")
    check_keys("field of a record:", given or {}, FIELDS)
    return {name: name for name in FIELDS} | dict(given or {})


def read_rows(source: Path) -> Iterator[tuple[int, dict[str, Any] | UmieError]]:
    """Yield the rows of a CSV, TSV or Parquet file with their numbers, in bounded memory.

    The number is that of the line where a row begins; in a Parquet file, that of the row, from 1.

    Raises:
        UmieError: the file cannot be read, or has no header.
    """
    if source.suffix.lower() == ".parquet":
        yield from _parquet_rows(source)
        return
    try:
        with open_regular(source) as file:
            with at(str(source)):
                check_content(file.read(64))
            file.seek(0)
            yield from _csv_rows(file, source, "\t" if source.suffix.lower() == ".tsv" else ",")
    except OSError as error:
        raise UmieError(f"{source}: cannot read: {error.strerror}") from error


def record_of_row(row: Mapping[str, Any], columns: Mapping[str, str], folder: str | None) -> Record:
    """Return the record of a row; see ``records_from_rows``.

    Raises:
        UmieError: a value is of another kind.
    """
    values = {field: value_of(row, column) for field, column in columns.items()}
    text, media = values["text"], {medium: values[medium] for medium in MEDIA}
    if not isinstance(text, str | None):
        raise UmieError(f"column {columns['text']} is {shown(text)}: expected a text")
    found: dict[str, Any] = {}
    for medium, value in media.items():
        if value is None or (isinstance(value, str) and not value):
            continue
        if medium == "image":
            value = _image(value, columns["image"])
        if not isinstance(value, str | (bytes | Image.Image if medium == "image" else str)):
            raise UmieError(f"column {columns[medium]} is {shown(value)}: expected the path of a file")
        found[medium] = value
    number = values["id"]
    if isinstance(number, float) and number.is_integer():  # whole numbers beside missing ones, in a data frame
        number = int(number)
    record = Record(text or "", id=None if number is None or number == "" else str(number), **found)
    return replace(record, image_folder=folder)


def check_columns(row: Mapping[str, Any], columns: Mapping[str, str]) -> None:
    """Raise UmieError unless a row has the column of the text or of a medium."""
    if columns["text"] not in row and not any(columns[medium] in row for medium in MEDIA):
        names = ", ".join(map(str, row))
        raise UmieError(
            f"there is no column {columns['text']!r} for the text, only: {names}; name it with --column text=COLUMN, "
            "columns={'text': COLUMN} (columns are separated by commas in .csv, and by tabs in .tsv)"
        )


def other_columns(row: Mapping[str, Any], columns: Mapping[str, str]) -> dict[str, Any]:
    """Return the columns that are no fields of the record; one with the name of a key of the output gets a prefix."""
    found: dict[str, Any] = {}
    for name, value in row.items():
        if name in columns.values():
            continue
        found[free_key(name, KEYS, row)] = plain(value)
    return found


def free_key(name: str, taken: Collection[str], others: Collection[str]) -> str:
    """Return the name of a key of the input in an output that has keys of its own: with a prefix, if it is taken."""
    key = name
    while key in taken or (key != name and key in others):
        key = f"input.{key}"
    return key


def value_of(row: Mapping[str, Any], column: str) -> Any:
    """Return a value of a row; None if it is missing in a data set or data frame.

    Data sets with undecoded images have a mapping with ``bytes`` or ``path`` for each.
    """
    value = row.get(column)
    if isinstance(value, Mapping) and value.keys() & {"bytes", "path"}:
        value = value.get("bytes") or value.get("path")
    is_nan = isinstance(value, numbers.Real) and value != value
    return None if is_nan or type(value).__name__ in ("NAType", "NaTType") else value  # without importing pandas


def _image(value: Any, column: str) -> Any:
    """Return the bytes of an image file, after a look at its header, or what else is given."""
    if isinstance(value, Path):
        return str(value)
    if not isinstance(value, bytes | bytearray):
        return value
    try:
        check_content(bytes(value[:64]))
        with limited_pixels(), open_format(io.BytesIO(value)):
            return bytes(value)
    except Exception as error:  # PIL raises nearly anything
        raise UmieError(f"column {column}: not a readable image ({error})") from error


def _csv_rows(file: IO[bytes], source: Path, delimiter: str) -> Iterator[tuple[int, dict[str, Any] | UmieError]]:
    csv.field_size_limit(MAX_LINE)
    line = 0

    def lines() -> Iterator[str]:
        for number, text in stream_lines(file, str(source)):
            if isinstance(text, UmieError):  # the rows around it cannot be told apart
                raise UmieError(f"{source}:{number}: {text}")
            yield f"{text}\n"

    reader = csv.reader(lines(), delimiter=delimiter, strict=True)
    try:
        header = next(reader, None)
        if not header or len(set(header)) != len(header):
            raise UmieError(f"{source}:1: the first line must name each column once, e.g. text{delimiter}image")
        while True:
            line = reader.line_num + 1
            values = next(reader, None)
            if values is None:
                return
            if not values:
                continue  # a blank line
            if len(values) != len(header):
                yield line, UmieError(f"has {len(values)} columns, and the header {len(header)}: quote the delimiter")
                continue
            yield line, dict(zip(header, values, strict=True))
    except csv.Error as error:  # a quote that is not closed may have swallowed any number of rows
        raise UmieError(
            f"{source}:{line or 1}: not a table ({error}): put a field that begins with a quote in quotes, and double "
            "those inside"
        ) from error


def _parquet_rows(source: Path) -> Iterator[tuple[int, dict[str, Any] | UmieError]]:
    parquet = import_extra("pyarrow.parquet", "parquet", "reading Parquet files")
    try:
        with open_regular(source) as file:
            number = 0
            for batch in parquet.ParquetFile(file).iter_batches(batch_size=_BATCH):
                for row in batch.to_pylist():
                    number += 1
                    yield number, row
    except OSError as error:
        raise UmieError(f"{source}: cannot be read: {error.strerror or error}") from error
    except UmieError:
        raise  # thrown into the generator by its caller
    except ValueError as error:  # pyarrow's
        raise UmieError(f"{source}: not a readable Parquet file ({error})") from error


def plain(value: Any) -> Any:
    """Return a value as JSON can express it: dates and other objects as text, and no contents of files."""
    if isinstance(value, Mapping):
        return {str(key): plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [plain(one) for one in value]
    if isinstance(value, bytes | bytearray):
        return f"{len(value)} bytes"
    if isinstance(value, float) and value != value:
        return None
    return value if isinstance(value, str | int | float | bool | None) else str(value)
