"""Region features in .tsv files of many GB: one pass builds an index of lines, which are then read by offset."""

from __future__ import annotations

import base64
import binascii
import contextlib
import json
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from umie.encoders.precomputed.files import LAYOUTS, Array, Entry, Layout
from umie.errors import UmieError, at, shown
from umie.files import atomic_write, decode_utf8

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

    def __init__(self, fields: Mapping[str, bytes], place: str) -> None:
        super().__init__(place)
        self._fields = fields

    @property
    def names(self) -> Collection[str]:
        """Names of the columns."""
        return self._fields.keys()

    def array(self, name: str) -> Array:
        """Return the numbers of a column, ``[N]``."""
        text = self._fields[name].strip()
        if (
            text[:2] in (b"b'", b'b"') and text[-1:] == text[1:2]
        ):  # the repr of bytes, as written by some Python 3 scripts
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
        values = self.array(name)
        parts = columns if rows is None else rows
        if not parts:
            return values.reshape(0, 0 if columns is None else columns) if not values.size else values
        if len(values) % parts:
            raise UmieError(
                f"{name} has {len(values):,} numbers, which do not form {f'boxes of {parts}' if rows is None else ''}"
                f"{'' if rows is None else f'rows for {parts} boxes'}: the line is damaged"
            )
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
    writable; it is rebuilt when the file's size or modification time changes.

    Args:
        path: the file.
        columns: names of its columns; None takes them from the header, or from the number of columns.
        keys: names of roles, see ``LAYOUTS``.
    """

    def __init__(self, path: Path, columns: Sequence[str] | None, keys: Layout) -> None:
        self.path = path
        self._keys = keys
        try:
            status = path.stat()
            with path.open("rb") as file:
                first = self._checked(file.readline(MAX_ROW + 1), 1)
        except OSError as error:
            raise UmieError(f"{path}: cannot read: {error.strerror}") from error
        self._state: list[Any] = [_VERSION, status.st_size, status.st_mtime_ns]
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
        self.columns = tuple(columns)
        self._id = next((self.columns.index(layout["id"]) for layout in known if layout["id"] in self.columns), None)
        if self._id is None:
            raise UmieError(f"{path}: no column for the images' names: set it with keys={{'id': ...}}")
        self._state += [list(self.columns), self._id]
        self.rows = self._load() or self._build()

    def entry(self, name: str) -> TsvEntry:
        """Return an image's line.

        Raises:
            UmieError: the image has two different lines, or the line does not match the index.
        """
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
        if fields[self._id or 0].decode(errors="replace").strip() != name:
            raise UmieError(f"{place}: the index does not match the file: delete {self._index_path.name}")
        return TsvEntry(dict(zip(self.columns, fields, strict=True)), place)

    def _line(self, offset: int, number: int) -> bytes:
        try:
            with self.path.open("rb") as file:
                file.seek(offset)
                return file.readline(MAX_ROW)
        except OSError as error:
            raise UmieError(f"{self.path}:{number}: cannot read: {error.strerror}") from error

    def _build(self) -> dict[str, list[tuple[int, int]]]:
        rows: dict[str, list[tuple[int, int]]] = {}
        offset = 0
        try:
            with self.path.open("rb", buffering=1 << 20) as file:
                for number, line in enumerate(iter(lambda: file.readline(MAX_ROW + 1), b""), start=1):
                    start, offset = offset, offset + len(self._checked(line, number))
                    if number == 1:
                        if self._has_names:
                            continue
                        if line.startswith(_MARK):
                            start, line = start + len(_MARK), line.removeprefix(_MARK)
                    if line.strip():
                        rows.setdefault(self._name(line, number), []).append((start, number))
        except OSError as error:
            raise UmieError(f"{self.path}: cannot read: {error.strerror}") from error
        # if it cannot be written, the index in memory is enough
        with contextlib.suppress(UmieError, OSError), atomic_write(self._index_path) as file:
            json.dump({"state": self._state, "rows": rows}, file)
        return rows

    def _checked(self, line: bytes, number: int) -> bytes:
        if len(line) > MAX_ROW:
            raise UmieError(f"{self.path}:{number}: more than {MAX_ROW:,} bytes in a line: is it a .tsv file?")
        return line

    def _name(self, line: bytes, number: int) -> str:
        assert self._id is not None
        fields = line.split(b"\t", self._id + 1)
        with at(f"{self.path}:{number}"):
            if len(fields) <= self._id:
                raise UmieError(f"{len(fields)} columns instead of {len(self.columns)}: the line is damaged")
            return decode_utf8(fields[self._id]).strip()

    @property
    def _index_path(self) -> Path:
        return self.path.with_name(self.path.name + INDEX_SUFFIX)

    def _load(self) -> dict[str, list[tuple[int, int]]] | None:
        """Return the stored index, or None if it is missing, damaged or outdated."""
        try:
            content: Any = json.loads(self._index_path.read_bytes())
            if content["state"] != self._state:
                return None
            size = self._state[1]
            rows = {name: [(int(start), int(line)) for start, line in found] for name, found in content["rows"].items()}
            known = all(found and all(0 <= start < size for start, _ in found) for found in rows.values())
        except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
            return None
        return rows if known else None
