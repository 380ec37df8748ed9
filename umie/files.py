"""Reading text line by line with places for errors; writing files so that a reader never sees half of one."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import IO, Any

from umie.errors import UmieError

MAX_LINE = 1 << 20  # characters; with the limit on the text it bounds what the spans of one line can cost
_MAX_CHARACTER = 4  # bytes of UTF-8


@contextmanager
def atomic_write(path: str | Path, mode: str = "w") -> Iterator[IO[Any]]:
    """Open a temporary file beside ``path`` and rename it there on success; on an error leave no trace.

    Where ``path`` is a symbolic link, the file that it names is written, and the link stays.

    Args:
        path: where the file shall stand; its folder is created.
        mode: ``"w"`` for UTF-8 text, ``"wb"`` for bytes.

    Raises:
        UmieError: no file can stand there.
    """
    target = _writable(Path(path))
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        # of a long name a part only: file systems take 255 bytes
        handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name[:40]}.", suffix=".part")
    except OSError as error:
        raise UmieError(f"{path}: cannot write: {error.strerror}; give a place that can be written") from error
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
    """Give a temporary folder, which takes the place of ``path`` on success; on an error leave no trace.

    Args:
        path: where the folder shall stand; one that stands there is replaced.

    Raises:
        UmieError: no folder can stand there.
    """
    target = Path(path).resolve()
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name[:40]}.", suffix=".part"))
    except OSError as error:
        raise UmieError(f"{path}: cannot write: {error.strerror}; give a place that can be written") from error
    try:
        new = temporary / "new"
        new.mkdir()
        yield new
        umask = os.umask(0)
        os.umask(umask)
        for file in (file for file in new.rglob("*") if file.is_file()):
            file.chmod(0o666 & ~umask)  # safetensors writes for its owner alone
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


def _writable(path: Path) -> Path:
    """Return where a file called ``path`` is written, links followed; raise UmieError if no file can be there."""
    try:
        target = path.resolve()
        if path.is_dir():
            raise UmieError(f"{path}: is a folder: give the name of a file")
        if path.exists() and not path.is_file():  # renaming would put a file in the place of the device or pipe
            raise UmieError(f"{path}: is a device or a pipe: give the name of a file")
        for folder in target.parents:
            if folder.exists():
                if not folder.is_dir():
                    raise UmieError(f"{path}: {folder} is no folder: give another place")
                break
    except OSError as error:
        raise UmieError(f"{path}: cannot write: {error.strerror}; give another name") from error
    except (ValueError, RuntimeError) as error:  # a NUL character in the name; a loop of links
        if isinstance(error, UmieError):
            raise
        raise UmieError(f"{path}: cannot write: {error}; give another name") from error
    return target


def read_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yield the lines of a UTF-8 file with their numbers, from 1, without line end or byte-order mark.

    Raises:
        UmieError: the file cannot be read, or a line is not UTF-8 or far longer than MAX_LINE.
    """
    for number, line in bounded_lines(path):
        if isinstance(line, UmieError):
            raise UmieError(f"{path}:{number}: {line}") from line
        yield number, line


def bounded_lines(
    path: Path,
    max_bytes: int = _MAX_CHARACTER * MAX_LINE,
    too_long: str = f"the line has more than {MAX_LINE:,} characters: give {MAX_LINE:,} or fewer, or part the record",
) -> Iterator[tuple[int, str | UmieError]]:
    """Yield the lines of a UTF-8 file with their numbers, from 1, without line end or byte-order mark.

    A line that is too long or not UTF-8 is yielded as the error that it deserves, so that what follows it can still
    be read; no more than ``max_bytes`` of a line are ever held.

    Args:
        path: the file.
        max_bytes: the most that a line may have; by default as many as MAX_LINE characters can have.
        too_long: the message for a line that has more.

    Raises:
        UmieError: the file cannot be read.
    """
    try:
        with path.open("rb") as file:
            # two bytes more than allowed, for the line's end, so that a line of just that length is told from a longer
            next_part = partial(file.readline, max_bytes + 2)
            for number, part in enumerate(iter(next_part, b""), start=1):
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
    except OSError as error:
        raise UmieError(f"{path}: cannot read: {error.strerror}") from error
    except UmieError:
        raise  # thrown in by the caller
    except ValueError as error:  # a NUL character in the name
        raise UmieError(f"{path}: cannot read: {error}") from error


def decode_utf8(data: bytes) -> str:
    """Return bytes as text; raise UmieError if they are not UTF-8."""
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise UmieError(f"not UTF-8 text ({error.reason}); save the file as UTF-8") from error
