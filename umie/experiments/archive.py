"""Archives: the results of a finished grid in one small file, without weights, predictions and texts of the data.

An archive is gzip-compressed JSON Lines: the description of the grid, then a line for each finished cell with its
result and its counts by record, and a last line with their number. Each line has a checksum. There are no paths in it.
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from umie.errors import UmieError, at
from umie.experiments.grid_file import GridFile, parse_grid_file, read_grid_file
from umie.experiments.results import (
    COUNTS,
    cell_folder,
    check_cell,
    check_seal,
    is_numbers,
    parse_sealed,
    read_numbers,
    sealed,
)
from umie.files import atomic_write, decode_utf8, json_text, open_regular

MAX_BYTES = 1 << 27  # of an archive when it is unpacked; its counts take several times as much memory
MAX_LINE_BYTES = 1 << 26
_FORMAT = "umie grid archive 2"
_GZIP = b"\x1f\x8b"


@dataclass(frozen=True)
class ArchivedCell:
    """A finished cell of an archive."""

    line: Mapping[str, Any]  # its result
    counts: Mapping[str, Any]  # by scored task, [records, 3]; empty if there are none


def write_archive(path: Path, folder: Path, results: Mapping[str, Mapping[str, Any]]) -> int:
    """Write the finished cells in the directory of a grid to an archive; return their number.

    The same results give the same bytes.

    Args:
        path: the archive.
        folder: the directory.
        results: the result of each cell, by hash.

    Raises:
        UmieError: the directory is not that of a grid, or no cell is finished.
    """
    grid = read_grid_file(folder)
    finished = [line for cell in grid.cells if (line := results.get(cell.hash, {})).get("status") == "ok"]
    if not finished:
        raise UmieError(f"{folder}: no cell is finished: run the grid first")
    with atomic_write(path, "wb") as file, gzip.GzipFile("", "wb", 9, file, mtime=0) as packed:

        def write(value: Mapping[str, Any]) -> None:
            packed.write((json_text(sealed(value)) + "\n").encode())

        write({"format": _FORMAT, "grid": grid.model_dump(mode="json")})
        for line in finished:
            counts = read_numbers(line, path := cell_folder(folder, line["hash"]) / COUNTS, depth=2)
            if COUNTS in line.get("files", {}) and not counts:
                raise UmieError(f"{path}: is missing or damaged: remove {path.parent} and run the grid again")
            write({"result": line, "counts": counts})
        write({"format": _FORMAT, "cells": len(finished)})
    return len(finished)


def is_archive(path: Path) -> bool:
    """Return whether a file begins like an archive."""
    try:
        with open_regular(path) as file:
            return file.read(2) == _GZIP
    except OSError:
        return False


def read_archive(path: Path) -> tuple[GridFile, Iterator[ArchivedCell]]:
    """Return the description of the grid in an archive, and its cells, which are read one after the other.

    Nothing is executed or unpickled, no path is read from the file, and its size is bounded.

    Raises:
        UmieError: the file is not an archive, is damaged, cut off or too large; also while the cells are read.
    """
    lines = _lines(path)
    with at(str(path)):
        head = next(lines, {})
        if head.get("format") != _FORMAT or not isinstance(head.get("grid"), dict):
            raise UmieError(f"not an archive of a grid ({_FORMAT}): use one that `umie grid export --archive` wrote")
        grid = parse_grid_file(head["grid"])
    return grid, _cells(path, grid, lines)


def _cells(path: Path, grid: GridFile, lines: Iterator[dict[str, Any]]) -> Iterator[ArchivedCell]:
    left = {cell.hash: cell for cell in grid.cells}
    keys = [one.key for one in grid.scored]
    count = 0
    for line in lines:
        with at(str(path)):
            if line.get("format") == _FORMAT:
                if line.get("cells") != count or next(lines, None) is not None:
                    raise UmieError("damaged: its last line does not fit the others: copy it again")
                return
            result, counts = line.get("result"), line.get("counts")
            if not isinstance(result, dict) or not isinstance(counts, dict):
                raise UmieError("damaged: a line is no result: copy it again")
            check_seal(result)
            check_cell(result, keys)
            cell = left.pop(result["hash"], None)
            if result["status"] != "ok" or cell is None or result["seed"] != cell.seed:
                raise UmieError(f"{result['hash']} is no finished cell of its grid, or is there twice: write it again")
            if not all(0 <= own["f1"] <= 1 for own in result["metrics"].values()):
                raise UmieError(f"an F1 of {result['hash']} is not between 0 and 1: write it again")
            if not all(key in keys and _are_counts(own) for key, own in counts.items()):
                raise UmieError(f"the counts of {result['hash']} are no counts: write it again")
            if COUNTS in result.get("files", {}) and not counts:
                raise UmieError(f"the counts of {result['hash']} are missing: write it again")
            count += 1
        yield ArchivedCell(result, counts)
    raise UmieError(f"{path}: cut off: its last line is missing: copy it again")


def _are_counts(value: object) -> bool:
    """Return whether a value is a list of three counts for each record."""
    return is_numbers(value, 2) and all(
        len(row) == 3 and all(isinstance(one, int) and one >= 0 for one in row)
        for row in value  # type: ignore[attr-defined] # it is a list
    )


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    total = 0
    try:
        with open_regular(path) as file, gzip.GzipFile(fileobj=file) as packed:
            while data := packed.readline(MAX_LINE_BYTES + 1):
                total += len(data)
                if len(data) > MAX_LINE_BYTES or total > MAX_BYTES:
                    raise UmieError(f"{path}: is larger than an archive can be ({MAX_BYTES:,} bytes, unpacked)")
                with at(str(path)):
                    yield parse_sealed(decode_utf8(data))
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise UmieError(f"{path}: damaged or no archive of a grid ({error}): copy it again") from error
    except OSError as error:
        raise UmieError(f"{path}: cannot read: {error.strerror or error}") from error
