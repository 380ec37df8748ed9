"""Region features in .tsv files of many GB: one pass builds an index of lines, which are then read by offset."""

from __future__ import annotations

import base64
import binascii
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from io import BufferedReader
from pathlib import Path
from typing import Any

import numpy as np

from umie.encoders.precomputed.files import LAYOUTS, Array, Entry, Layout
from umie.errors import UmieError, at, shown
from umie.files import atomic_write, check_content, decode_utf8, json_text, open_regular, read_data

MAX_ROW = 64 << 20  # bytes: a line with 100 boxes of 2048 numbers has 1.1 MiB
INDEX_SUFFIX = ".umie-index.json"
_VERSION = 1
_MARK = b"\xef\xbb\xbf"  # byte-order mark, which some editors write

# layouts of files without a header, by their number of columns
COLUMNS: Mapping[int, tuple[str, ...]] = {
    10: (
        *("img_id", "img_h", "img_w", "objects_id", "objects_conf", "attrs_id", "attrs_conf"),
        *("num_boxes", "boxes", "features"),
    ),
    6: ("image_id", "image_w", "image_h", "num_boxes", "boxes", "features"),
}


class TsvEntry(Entry):
    """A line of a .tsv file: numbers as plain text, arrays as base64 of float32."""

    is_padded = False

    def __init__(self, place: str, fields: Mapping[str, bytes]) -> None:
        super().__init__(place, fields.keys(), self._numbers)
        self._fields = fields

    def _numbers(self, name: str) -> Array:
        text = self._fields[name].strip()
        # the repr of bytes, as written by some Python 3 scripts
        if text[:2] in (b"b'", b'b"') and text[-1:] == text[1:2]:
            text = text[2:-1]
        try:
            data = base64.b64decode(text, validate=True)
        except (binascii.Error, ValueError) as error:
            raise UmieError(f"{name} is not base64 ({error}): the line is damaged") from error
        if len(data) % 4:
            raise UmieError(f"{name} has {len(data):,} bytes, not a multiple of 4 (float32): the line is damaged")
        return np.frombuffer(data, dtype="<f4")

    def matrix(self, name: str, rows: int | None = None, columns: int | None = None) -> Array:
        """Return the numbers of a column as a matrix with the given number of rows or columns."""
        values = self._numbers(name)
        parts = columns if rows is None else rows
        if not parts:
            return values.reshape(0, columns or 0) if not values.size else values
        if len(values) % parts:
            form = f"boxes of {parts}" if rows is None else f"rows for {parts} boxes"
            raise UmieError(f"{name} has {len(values):,} numbers, which do not form {form}: the line is damaged")
        return values.reshape((-1, parts) if rows is None else (parts, -1))

    def number(self, name: str) -> float:
        """Return the number in a column."""
        text = self._fields[name]
        try:
            return float(text)
        except ValueError as error:
            raise UmieError(f"{name} is {shown(text.decode(errors='replace'))}: expected a number") from error


class TsvFile:
    """A .tsv file with an index of each image's line.

    The index is built in one pass and stored next to the file (``<name>.umie-index.json``) if the directory is
    writable; it is rebuilt when the file's size or modification time changes. Without ``columns``, their names come
    from the header, or from the number of columns.
    """

    def __init__(self, path: Path, columns: Sequence[str] | None, keys: Layout) -> None:
        self.path = path
        self._index_path = path.with_name(path.name + INDEX_SUFFIX)
        with self._reading(), open_regular(path) as file:
            status = os.fstat(file.fileno())
            first = self._checked(file.readline(MAX_ROW + 1), 1)
        with at(str(path)):
            check_content(first)
        fields = first.rstrip(b"\r\n").removeprefix(_MARK).split(b"\t")
        names = [field.decode(errors="replace") for field in fields]
        known = [{**layout, **keys} for layout in LAYOUTS["tsv"]]
        self._has_names = any({layout["features"], layout["boxes"]} <= set(names) for layout in known)
        if columns is None:
            columns = names if self._has_names else COLUMNS.get(len(names))
        if columns is None:
            raise UmieError(
                f"{path}:1: {len(names)} columns and no header: set their names with columns=['img_id', ...]"
            )
        self.columns = list(columns)
        ids = [self.columns.index(layout["id"]) for layout in known if layout["id"] in self.columns]
        if not ids:
            raise UmieError(f"{path}: no column for the images' names: set it with keys={{'id': ...}}")
        self._id = ids[0]
        self._state: list[Any] = [_VERSION, status.st_size, status.st_mtime_ns, self.columns, self._id]
        self.rows = self._load() or self._build()  # offset and number of each line of an image, by the image's name

    def entry(self, name: str) -> TsvEntry:
        """Return an image's line; raise UmieError if it has two different ones or does not match the index."""
        (offset, number), *others = self.rows[name]
        line = self._line(offset, number)
        for other, second in others:
            if self._line(other, second) != line:
                raise UmieError(
                    f"{self.path}:{second}: {shown(name)} is also in line {number}, with other content: remove one"
                )
        fields = line.rstrip(b"\r\n").split(b"\t")
        place = f"{self.path}:{number}: {shown(name)}"
        if len(fields) != len(self.columns):
            raise UmieError(f"{place}: {len(fields)} columns instead of {len(self.columns)}: the line is damaged")
        if fields[self._id].decode(errors="replace").strip() != name:
            raise UmieError(f"{place}: the index does not match the file: delete {self._index_path.name}")
        return TsvEntry(place, dict(zip(self.columns, fields, strict=True)))

    def _line(self, offset: int, number: int) -> bytes:
        with self._reading(f":{number}"), open_regular(self.path) as file:
            file.seek(offset)
            return file.readline(MAX_ROW)

    @contextmanager
    def _reading(self, where: str = "") -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise UmieError(f"{self.path}{where}: cannot read: {error.strerror}") from error

    def _checked(self, line: bytes, number: int) -> bytes:
        if len(line) > MAX_ROW:
            raise UmieError(f"{self.path}:{number}: more than {MAX_ROW:,} bytes in a line: is it a .tsv file?")
        return line

    def _build(self) -> dict[str, list[tuple[int, int]]]:
        rows: dict[str, list[tuple[int, int]]] = {}
        offset = 0
        with self._reading(), BufferedReader(open_regular(self.path).detach(), 1 << 20) as file:
            for number, line in enumerate(iter(lambda: file.readline(MAX_ROW + 1), b""), start=1):
                start, offset = offset, offset + len(self._checked(line, number))
                if number == 1 and self._has_names:
                    continue
                if number == 1 and line.startswith(_MARK):
                    start, line = start + len(_MARK), line.removeprefix(_MARK)
                if not line.strip():
                    continue
                with at(f"{self.path}:{number}"):
                    fields = line.split(b"\t", self._id + 1)
                    if len(fields) <= self._id:
                        raise UmieError(f"{len(fields)} columns instead of {len(self.columns)}: the line is damaged")
                    rows.setdefault(decode_utf8(fields[self._id]).strip(), []).append((start, number))
        # if it cannot be written, the index in memory is enough
        with suppress(UmieError, OSError), atomic_write(self._index_path) as file:
            file.write(json_text({"state": self._state, "rows": rows}))
        return rows

    def _load(self) -> dict[str, list[tuple[int, int]]] | None:
        """Return the stored index, or None if it is missing, damaged or outdated."""
        try:
            content: Any = json.loads(read_data(self._index_path))
            if content["state"] != self._state:
                return None
            size = self._state[1]
            rows = {name: [(int(start), int(line)) for start, line in found] for name, found in content["rows"].items()}
            known = all(found and all(0 <= start < size for start, _ in found) for found in rows.values())
        except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
            return None
        return rows if known else None
