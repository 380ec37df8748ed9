"""Reading text line by line with places for errors; writing files so that a reader never sees half of one."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from umie.errors import UmieError, at


@contextmanager
def atomic_write(path: str | Path, mode: str = "w") -> Iterator[IO[Any]]:
    """Open a temporary file beside ``path`` and rename it there on success; on an error leave no trace.

    Args:
        path: where the file shall stand; its folder is created.
        mode: ``"w"`` for UTF-8 text, ``"wb"`` for bytes.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
    try:
        with os.fdopen(handle, mode, encoding=None if "b" in mode else "utf-8") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        umask = os.umask(0)
        os.umask(umask)
        Path(name).chmod(0o666 & ~umask)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def read_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yield the lines of a UTF-8 file with their numbers, from 1, without line end or byte-order mark.

    Raises:
        UmieError: the file cannot be read, or a line is not UTF-8.
    """
    try:
        with path.open("rb") as file:  # decoded line by line, so that an error can name its line
            for number, line in enumerate(file, start=1):
                with at(f"{path}:{number}"):
                    text = decode_utf8(line).removesuffix("\n").removesuffix("\r")
                yield number, text.removeprefix("\ufeff") if number == 1 else text
    except OSError as error:
        raise UmieError(f"{path}: cannot read: {error.strerror}") from error
    except ValueError as error:  # a NUL character in the name; UmieError, a ValueError too, passes as it is
        if isinstance(error, UmieError):
            raise
        raise UmieError(f"{path}: cannot read: {error}") from error


def decode_utf8(data: bytes) -> str:
    """Return bytes as text; raise UmieError if they are not UTF-8."""
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise UmieError(f"not UTF-8 text ({error.reason}); save the file as UTF-8") from error
