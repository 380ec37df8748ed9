"""Result files of a grid: lines of JSON with a checksum, so that a damaged one is noticed and never used."""

from __future__ import annotations

import gc
import hashlib
import itertools
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel as Model
from pydantic import Field, ValidationError

from umie.errors import UmieError, at, check_keys, shown
from umie.files import atomic_write, check_writable, decode_utf8, json_text, parse_json, read_data, read_json
from umie.versions import file_digest

RESULTS = "results.jsonl"  # in the directory of a grid: the newest result of each cell, one per line
RESULT = "result.json"  # in the directory of a cell
COUNTS = "counts.json"  # in the directory of a cell: by task and record, correct, predicted and annotated items
GATES = "gates.json"  # in the directory of a cell: the gates of queries about records with media, by scored task
CURVES = "curves.json"  # in the directory of a cell: training loss and mean dev score by step
CHECKSUM = "seal"  # of the text of a result; "checksum" in earlier versions, which is not checked
_SEAL = b', "%s": "' % CHECKSUM.encode()  # before the checksum in a line
STATES = "ok", "failed", "not run"  # of cells, in tables
_BATCH = 1000  # lines that are read together

Number = Annotated[float, Field(strict=True)]
Finite = Annotated[float, Field(strict=True, allow_inf_nan=False)]
Count = Annotated[int, Field(strict=True)]


class _Score(Model):
    """The score of one task, as far as reports use it."""

    f1: Finite
    precision: Finite
    recall: Finite
    interval: tuple[Finite, Finite]
    dropped: Count


class _Any(Model):
    """Any result, e.g. of a cell of another grid or of a warm start."""

    hash: Annotated[str, Field(strict=True)]
    status: Literal["ok", "crashed"]


class _Crashed(_Any):
    """The result of a cell that crashed."""

    error: str
    traceback: str


class _Finished(_Any):
    """The result of a cell that was scored."""

    seed: Count
    metrics: dict[str, _Score]
    health: dict[str, Number]
    counts: dict[str, dict[str, Count]]
    parameters: Count
    seconds: dict[str, Number]
    uses_image: Annotated[bool, Field(strict=True)]
    device: str
    threads: Count
    versions: dict[str, str | None]
    memory: dict[str, Number] = Field(default_factory=dict)
    disk: dict[str, Number] = Field(default_factory=dict)
    images: dict[str, Any] = Field(default_factory=dict)
    shares: dict[str, Number] = Field(default_factory=dict)
    files: dict[str, str] = Field(default_factory=dict)


def sealed(line: Mapping[str, Any]) -> dict[str, Any]:
    """Return a result with its checksum, which is last."""
    values = {key: value for key, value in line.items() if key != CHECKSUM}
    return {**values, CHECKSUM: _checksum(json_text(values).encode())}


def parse_sealed(text: str) -> dict[str, Any]:
    """Return what ``sealed`` returned from its JSON text; raise UmieError if it has no checksum or another one."""
    line = parse_json(text)
    if not isinstance(line, dict) or CHECKSUM not in line:
        raise UmieError(f"has no checksum ({CHECKSUM!r}), so it is not from this version, or damaged: {shown(line)}")
    check_seal(line)
    return line


def write_sealed(path: Path, value: Mapping[str, Any], *, indent: int | None = None) -> None:
    """Write an object with its checksum."""
    with atomic_write(path) as file:
        file.write(json_text(sealed(value), indent=indent) + "\n")


def read_sealed(path: Path) -> dict[str, Any]:
    """Return what ``write_sealed`` wrote; raise UmieError if it is damaged, OSError if it cannot be read."""
    return parse_sealed(decode_utf8(read_data(path)))


def check_seal(line: Mapping[str, Any]) -> None:
    """Raise UmieError unless a value has the checksum that ``sealed`` computed."""
    try:
        expected = sealed(line)[CHECKSUM]
    except (ValueError, RecursionError):  # half a character, or too deep: it was never written
        expected = None
    if expected is None or line.get(CHECKSUM) != expected:
        raise UmieError("damaged: its checksum does not fit its values")


def parse_result(text: str, scored: Sequence[str] | None = None) -> dict[str, Any]:
    """Return a result from its JSON text.

    Args:
        text: the JSON text; results of earlier versions have no checksum.
        scored: the keys of the scored tasks, for the result of a cell; None for any result.

    Raises:
        UmieError: the text is not JSON, its checksum is wrong, or a value is missing or of another type.
    """
    line = parse_json(text)
    if not isinstance(line, dict):
        raise UmieError(f"not a result, but {shown(line)}")
    if CHECKSUM in line:
        check_seal(line)
    _check(_Any, line)
    if scored is not None:
        check_cell(line, scored)
    return line


def check_cell(line: Mapping[str, Any], scored: Sequence[str]) -> None:
    """Raise UmieError if a result is not one of a cell with these scored tasks."""
    _check(_Crashed if line["status"] == "crashed" else _Finished, line)
    if line["status"] == "ok":
        check_keys("score needed:", scored, line["metrics"])


def _check(kind: type[Model], line: Mapping[str, Any]) -> None:
    try:
        kind.model_validate(line)
    except ValidationError as error:
        first = error.errors()[0]
        raise UmieError(f"not a result: {'.'.join(map(str, first['loc']))}: {first['msg']}") from None


def read_result(path: Path, scored: Sequence[str] | None = None) -> dict[str, Any]:
    """Return the result in a file; raise UmieError if it cannot be read or is damaged, see ``parse_result``."""
    with at(str(path)):
        try:
            return parse_result(decode_utf8(read_data(path)), scored)
        except OSError as error:
            raise UmieError(f"cannot read: {error.strerror}") from error


@contextmanager
def _without_collection() -> Iterator[None]:
    """Do not collect garbage: it would go through everything that was read, again and again, and find nothing."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


@_without_collection()
def read_results(
    output: Path,
    cells: Mapping[str, str],
    scored: Sequence[str],
    *,
    repair: bool = True,
    on_damage: Callable[[str], None] = lambda what: None,
    on_others: Callable[[int], None] = lambda number: None,
) -> dict[str, dict[str, Any]]:
    """Return the newest result of each planned cell, by hash.

    A damaged line is reported and left out, and an incomplete last line, left by a killed run, is left out. Results
    that are only in the directory of their cell are added.

    Args:
        output: the directory of the grid.
        cells: the name of each planned cell, by hash.
        scored: the keys of the scored tasks.
        repair: correct the file accordingly; this requires the lock of the directory.
        on_damage: called with a sentence about each damaged line or file.
        on_others: called with the number of finished cells in the file that are not planned, if there are any.
    """
    path = output / RESULTS
    lines: list[dict[str, Any]] = []
    is_damaged = False
    for number, text, found in _lines_of(path):
        try:
            line = parse_result(decode_utf8(text)) if found is None else found
            if isinstance(line.get("hash"), str) and line["hash"] in cells and line.get("status") in ("ok", "crashed"):
                check_cell(line, scored)
            else:
                _check(_Any, line)
            lines.append(line)
        except UmieError as error:
            is_damaged = True
            if text.endswith(b"\n"):  # the last line without an end is no damage: a run was killed
                on_damage(f"{path}:{number}: {error}; the line is not used")
        is_damaged = is_damaged or not text.endswith(b"\n")  # the next line would be appended to it
    known = {(line["hash"], line["status"]) for line in lines}
    for hash_, name in cells.items():
        if (hash_, "ok") in known or not (left := cell_folder(output, hash_) / RESULT).exists():
            continue
        try:
            line = read_result(left, scored)
            if line["hash"] != hash_:
                raise UmieError(f"{left}: is the result of another cell, {line['hash']}")
        except UmieError as error:
            on_damage(f"{error}; {name} runs again")
            continue
        if line["status"] == "ok":
            lines.append(line)
            is_damaged = True
    if is_damaged and repair:
        with atomic_write(path) as file:
            file.writelines(json_text(line) + "\n" for line in lines)
    if others := {line["hash"] for line in lines if line["status"] == "ok"} - set(cells):
        on_others(len(others))
    return {line["hash"]: line for line in lines if line["hash"] in cells}


def _lines_of(path: Path) -> Iterator[tuple[int, bytes, dict[str, Any] | None]]:
    """Yield the lines of a results file with their numbers; and the value of each line that is intact."""
    if not path.is_file():
        return
    with path.open("rb") as file:
        start = 1
        while texts := list(itertools.islice(file, _BATCH)):
            values: Iterable[dict[str, Any] | None] = _intact(texts) or itertools.repeat(None)
            yield from zip(itertools.count(start), texts, values, strict=False)
            start += len(texts)


def _intact(texts: Sequence[bytes]) -> list[dict[str, Any]] | None:
    """Return the values of lines if all of them have their checksum.

    The checksum is that of the text before it, as ``sealed`` wrote it, so that the values need no further check. Lines
    are decoded as one list, whose objects share their keys: half the memory and time of one after the other.
    """
    for text in texts:
        values, _, end = text.rpartition(_SEAL)
        if end != b'%s"}\n' % _checksum(values + b"}").encode():
            return None
    try:
        decoded = _decode("[" + ",".join(text.decode() for text in texts) + "]")
    except (ValueError, RecursionError):
        return None
    return decoded if len(decoded) == len(texts) and all(isinstance(value, dict) for value in decoded) else None


def _no_number(text: str) -> float:
    raise ValueError(f"{text} is not a number in JSON")


_decode = json.JSONDecoder(parse_constant=_no_number).decode


def append_result(path: Path, line: Mapping[str, Any]) -> None:
    """Append a result to a results file and sync it to disk; a line that a killed run left incomplete is ended.

    Raises:
        UmieError: it cannot be written, e.g. because the disk is full.
    """
    try:
        with check_writable(path).open("a+b") as file:
            if file.tell():
                file.seek(-1, os.SEEK_END)
                if file.read(1) != b"\n":
                    file.write(b"\n")
            file.write(json_text(line).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise UmieError(f"{path}: a result cannot be appended: {error.strerror}") from error


def state_of(line: Mapping[str, Any] | None) -> str:
    """Return what tables say of a cell with this result: one of STATES."""
    return "not run" if line is None else {"crashed": "failed"}.get(line["status"], line["status"])


def results_of_others(number: int) -> str:
    """Return the words for finished cells that a grid does not have; see ``read_results``."""
    return f"results of {number} other {'cell' if number == 1 else 'cells'} (other options, data or seeds)"


def cell_folder(output: Path, hash_: str) -> Path:
    """Return the directory of a cell."""
    return output / "cells" / hash_


def read_numbers(line: Mapping[str, Any], path: Path, depth: int) -> dict[str, Any]:
    """Return the numbers by task in a file next to a result; empty if the file is missing or is not what it was.

    Args:
        line: the result; since checksums were introduced, it has those of its files.
        path: a JSON file.
        depth: the depth of the lists of numbers, e.g. 1 for a list.
    """
    expected = line.get("files", {}).get(path.name)
    try:
        if not path.is_file() or (expected is not None and file_digest(path) != expected):
            return {}
        found = read_json(path)
    except (OSError, UmieError):
        return {}
    return found if isinstance(found, dict) and all(is_numbers(one, depth) for one in found.values()) else {}


def is_numbers(value: object, depth: int) -> bool:
    """Return whether a value is a number, or lists of numbers that are nested this deep."""
    if not depth:
        return isinstance(value, int | float) and not isinstance(value, bool)
    return isinstance(value, list) and all(is_numbers(one, depth - 1) for one in value)


def _checksum(text: bytes) -> str:
    return hashlib.sha256(text).hexdigest()[:16]
