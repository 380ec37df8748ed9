"""The folder of a conversion: written completely or not at all; it replaces nothing but an earlier conversion."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from umie.errors import UmieError
from umie.files import atomic_folder

MARK = "conversion.json"  # marks the folder of a conversion


@contextmanager
def written_folder(path: Path, *, overwrite: bool = False) -> Iterator[Path]:
    """Yield a temporary folder that is renamed to ``path`` on success and removed on an error.

    Args:
        path: the folder to write; it may exist if it is empty.
        overwrite: replace the folder of an earlier conversion.

    Raises:
        UmieError: ``path`` is something else, or is not writable.
    """
    _check_place(path, overwrite)
    with atomic_folder(path) as new:
        yield new
        _check_place(path, overwrite)  # it may have been created in the meantime


def _check_place(path: Path, overwrite: bool) -> None:
    try:
        if path.exists() and not path.is_dir():
            raise UmieError(f"{path}: not a directory: use another name")
        if not path.exists() or not any(path.iterdir()):
            return
        if not (path / MARK).is_file():
            raise UmieError(f"{path}: exists and is not an earlier conversion: use another name, or an empty folder")
    except OSError as error:
        raise UmieError(f"{path}: cannot write: {error.strerror}; use another name") from error
    if not overwrite:
        raise UmieError(f"{path}: contains an earlier conversion: use another name, or --overwrite")
