"""Read text and JSON files with located errors; write files atomically."""

from __future__ import annotations

import errno
import json
import math
import os
import shutil
import stat
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from io import BufferedReader
from pathlib import Path
from typing import IO, Any

from umie.errors import UmieError, at, shown

MAX_LINE = 1 << 20  # characters; together with the limit on the text, bounds the cost of checking one line's spans
_MAX_CHARACTER = 4  # bytes in UTF-8
MAX_HEAD = 64  # bytes that show what a file is
_POINTER = b"version https://git-lfs.github.com/"
_ARCHIVES = {
    b"\x1f\x8b": "compressed by gzip: unpack it",
    b"PK\x03\x04": "a zip archive: unpack it",
    b"BZh91AY&SY": "compressed by bzip2: unpack it",
    b"\xfd7zXZ\x00": "compressed by xz: unpack it",
}  # the first bytes of files that are often in place of others


@contextmanager
def atomic_write(path: str | Path, mode: str = "w") -> Iterator[IO[Any]]:
    """Open a temporary file next to ``path`` and rename it to ``path`` on success; remove it on an error.

    If ``path`` is a symbolic link, the target of the link is written and the link is kept.

    Args:
        path: the file to write; its parent directories are created.
        mode: ``"w"`` for UTF-8 text, ``"wb"`` for bytes.

    Raises:
        UmieError: no file can be written at ``path``.
    """
    target = check_writable(Path(path))
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        # a long name is cut because file systems limit names to 255 bytes
        handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name[:40]}.", suffix=".part")
    except OSError as error:
        raise UmieError(f"{path}: cannot write: {error.strerror}; choose a writable path") from error
    try:
        with os.fdopen(handle, mode, encoding=None if "b" in mode else "utf-8") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        umask = os.umask(0)
        os.umask(umask)
        Path(name).chmod(0o666 & ~umask)
        Path(name).replace(target)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


@contextmanager
def atomic_folder(path: str | Path) -> Iterator[Path]:
    """Yield a temporary directory and rename it to ``path`` on success; remove it on an error.

    An existing directory is replaced. UmieError is raised if none can be written.
    """
    target = Path(path).resolve()
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name[:40]}.", suffix=".part"))
    except OSError as error:
        raise UmieError(f"{path}: cannot write: {error.strerror}; choose a writable path") from error
    try:
        new = temporary / "new"
        new.mkdir()
        yield new
        umask = os.umask(0)
        os.umask(umask)
        for file in (file for file in new.rglob("*") if file.is_file()):
            file.chmod(0o666 & ~umask)  # safetensors makes files readable by their owner only
            with file.open("rb") as handle:
                os.fsync(handle.fileno())
        if target.exists():
            target.rename(temporary / "old")
        try:
            new.rename(target)
        except OSError:
            if (temporary / "old").exists():
                (temporary / "old").rename(target)
            raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def check_writable(path: Path) -> Path:
    """Return ``path`` with links resolved; raise UmieError if no file can be written there."""
    try:
        target = path.resolve()
        if path.is_dir():
            raise UmieError(f"{path}: is a directory; use the name of a file")
        if path.exists() and not path.is_file():  # renaming would replace the device or pipe by a file
            raise UmieError(f"{path}: is a device or a pipe; use the name of a regular file")
        for folder in target.parents:
            if folder.exists():
                if not folder.is_dir():
                    raise UmieError(f"{path}: {folder} is not a directory; choose another path")
                break
    except OSError as error:
        raise UmieError(f"{path}: cannot write: {error.strerror}; choose another name") from error
    except (ValueError, RuntimeError) as error:  # a NUL character in the name; a loop of links
        if isinstance(error, UmieError):
            raise
        raise UmieError(f"{path}: cannot write: {error}; choose another name") from error
    return target


def open_regular(path: str | Path) -> BufferedReader:
    """Open a file to read bytes.

    Raises:
        OSError: the file cannot be opened, or is a directory, a pipe or a device; opening a pipe does not block.
    """
    return open(path, "rb", opener=_regular)


def _regular(path: str, flags: int) -> int:
    descriptor = os.open(path, flags | getattr(os, "O_NONBLOCK", 0))  # a pipe without a writer would block
    mode = os.fstat(descriptor).st_mode
    if not stat.S_ISREG(mode):
        os.close(descriptor)
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, "Is a directory, not a regular file", path)
        raise OSError(errno.EINVAL, "is a pipe or a device, not a regular file", path)
    return descriptor


def read_data(path: str | Path) -> bytes:
    """Return the bytes of a regular file.

    Raises:
        OSError: see ``open_regular``.
        UmieError: the file is a Git LFS pointer or compressed.
    """
    with open_regular(path) as file:
        data = file.read()
    check_content(data)
    return data


def check_content(head: bytes) -> None:
    """Raise UmieError if the first bytes of a file are those of a Git LFS pointer or of a compressed file."""
    check_pointer(head)
    for beginning, what in _ARCHIVES.items():
        if head.startswith(beginning):
            raise UmieError(f"the file is {what}")


def check_pointer(head: bytes) -> None:
    """Raise UmieError if the first bytes of a file are those of a Git LFS pointer."""
    if head.startswith(_POINTER):
        raise UmieError("the file is a Git LFS pointer, not the file itself: run `git lfs pull`, or download it")


def inside(folder: str | Path, name: str) -> Path:
    """Return the path of a file in a directory; raise UmieError if it is outside, through ``..`` or a link."""
    resolved_inside(folder, name)
    return Path(folder) / name


def resolved_inside(folder: str | Path, name: str) -> Path:
    """Return what ``inside`` returns, absolute and without links."""
    root = Path(folder).resolve()
    try:
        path = (root / name).resolve()
    except (ValueError, OSError, RuntimeError) as error:  # a NUL character, a loop of links
        raise UmieError(f"{folder}: {shown(name)} is not a file name: {error}") from error
    if not path.is_relative_to(root):
        raise UmieError(f"{Path(folder) / name}: is outside the directory {folder}; copy the file into it")
    return path


def read_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yield the lines of a UTF-8 file with their numbers, from 1, without line endings and byte-order mark.

    Raises:
        UmieError: the file cannot be read, or a line is not UTF-8 or is too long (see ``bounded_lines``).
    """
    for number, line in bounded_lines(path):
        if isinstance(line, UmieError):
            raise UmieError(f"{path}:{number}: {line}") from line
        yield number, line


TOO_LONG = f"the line has more than {MAX_LINE:,} characters; split the record"


def bounded_lines(
    path: Path,
    max_bytes: int = _MAX_CHARACTER * MAX_LINE,
    too_long: str = TOO_LONG,
) -> Iterator[tuple[int, str | UmieError]]:
    """Yield the lines of a UTF-8 file with their numbers, from 1, without line endings and byte-order mark.

    A line that is too long or not UTF-8 is yielded as an error, and reading continues with the next line. At most
    ``max_bytes`` of a line are held in memory, by default enough for MAX_LINE characters.
    """
    try:
        with open_regular(path) as file:
            yield from stream_lines(file, str(path), max_bytes, too_long)
    except OSError as error:
        raise UmieError(f"{path}: cannot read: {error.strerror}") from error
    except UmieError:
        raise  # thrown into the generator by its caller
    except ValueError as error:  # a NUL character in the name
        raise UmieError(f"{path}: cannot read: {error}") from error


def stream_lines(
    file: IO[bytes], name: str, max_bytes: int = _MAX_CHARACTER * MAX_LINE, too_long: str = TOO_LONG
) -> Iterator[tuple[int, str | UmieError]]:
    """Yield the lines of an open file as ``bounded_lines`` does; ``name`` is for messages."""
    # two more bytes for the line ending, so that a line of exactly max_bytes is not mistaken for a longer one
    next_part = partial(file.readline, max_bytes + 2)
    for number, part in enumerate(iter(next_part, b""), start=1):
        if number == 1:
            with at(name):
                check_content(part)
        if len(part) > max_bytes and len(part.rstrip(b"\r\n")) > max_bytes:
            while part and not part.endswith(b"\n"):
                part = next_part()
            yield number, UmieError(too_long)
            continue
        try:
            line = decode_utf8(part).removesuffix("\n").removesuffix("\r")
        except UmieError as error:
            yield number, error
            continue
        yield number, line.removeprefix("\ufeff") if number == 1 else line


def decode_utf8(data: bytes) -> str:
    """Return bytes as text; raise UmieError if they are not UTF-8."""
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise UmieError(f"not UTF-8 text ({error.reason}); save the file as UTF-8") from error


def read_json(path: str | Path, what: str = "a JSON file", *, allow_nan: bool = False) -> Any:
    """Return the content of a JSON file; a byte-order mark is skipped.

    Args:
        path: the file.
        what: the expected kind of file, for error messages.
        allow_nan: see ``parse_json``.

    Raises:
        UmieError: the file cannot be read, is not UTF-8, is not JSON, or repeats a key within one object.
    """
    try:
        text = decode_utf8(read_data(path)).removeprefix("\ufeff")
        return parse_json(text, allow_nan=allow_nan)
    except OSError as error:
        raise UmieError(f"{path}: cannot read: {error.strerror}; expected {what}") from error
    except UmieError as error:
        raise UmieError(f"{path}: {error}; expected {what}") from error
    except ValueError as error:  # a NUL character in the name
        raise UmieError(f"{path}: cannot read: {error}; expected {what}") from error


def parse_json(text: str, *, allow_nan: bool = False) -> Any:
    """Return a JSON value; raise UmieError if the text is not valid JSON or repeats a key within one object.

    Numbers that no float can hold (``1e999``) and the names ``NaN`` and ``Infinity``, which are not JSON, are errors
    unless ``allow_nan`` is set, for files of other programs whose reader checks the numbers that it uses.
    """
    try:
        if allow_nan:
            return _decode_any(text)
        try:
            return _decode(text)
        except _NotFiniteError:
            check_numbers(_decode_any(text))  # for the place of the number
            raise
    except UmieError:
        raise
    except (ValueError, RecursionError) as error:  # not JSON, an integer with too many digits, too deeply nested
        raise UmieError(f"not valid JSON: {error}") from error


def check_numbers(value: Any, place: str = "") -> None:
    """Raise UmieError if a number in a JSON value is NaN or infinite; ``place`` is the key of the value."""
    if isinstance(value, float) and not math.isfinite(value):
        raise UmieError(f"{place or 'the value'} is {value}, which is not a number in JSON: use a finite one, or null")
    if isinstance(value, dict):
        for key, item in value.items():
            check_numbers(item, f"{place}.{shown(key)[1:-1]}" if place else shown(key)[1:-1])
    elif isinstance(value, list):
        for index, item in enumerate(value):
            check_numbers(item, f"{place}[{index}]")


def json_text(value: Any, *, ensure_ascii: bool = False, **options: Any) -> str:
    """Return a value as JSON; numbers that are NaN or infinite, which JSON does not have, become null.

    ``options`` are those of ``json.dumps``.
    """
    try:
        return json.dumps(value, ensure_ascii=ensure_ascii, allow_nan=False, **options)
    except ValueError:
        return json.dumps(_finite(value), ensure_ascii=ensure_ascii, allow_nan=False, **options)


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    return [_finite(item) for item in value] if isinstance(value, list | tuple) else value


class _NotFiniteError(UmieError):
    pass


def _number(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise _NotFiniteError(f"{shown(text)} is not a number in JSON")
    return value


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Build an object; the json module itself would silently keep only the last value of a repeated key."""
    data = dict(pairs)
    if len(data) < len(pairs):
        repeated = Counter(key for key, _ in pairs).most_common(1)[0][0]
        raise UmieError(f"duplicate key {shown(repeated)} in a JSON object; merge or remove one")
    return data


# json.loads would build a decoder for each call
_decode = json.JSONDecoder(object_pairs_hook=_unique_keys, parse_float=_number, parse_constant=_number).decode
_decode_any = json.JSONDecoder(object_pairs_hook=_unique_keys).decode


def is_same_file(first: Path, second: Path) -> bool:
    """Return whether two paths lead to one existing file."""
    return first.exists() and second.exists() and first.samefile(second)


def check_distinct(files: Iterable[Path]) -> None:
    """Raise UmieError if two paths lead to the same file."""
    seen: dict[object, Path] = {}
    for path in files:
        status = path.stat() if path.exists() else None
        key = path.resolve() if status is None else (status.st_dev, status.st_ino)
        if key in seen:
            raise UmieError(f"{path}: is the same file as {seen[key]}; use each file once")
        seen[key] = path
