"""The folder of a conversion: written whole or not at all, and never in the place of anything but an earlier one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from umie.errors import UmieError
from umie.files import atomic_folder

MARK = "conversion.json"  # what tells a converted folder from any other


@contextmanager
def written_folder(path: Path, *, overwrite: bool = False) -> Iterator[Path]:
    """Give a temporary folder, which takes the place of ``path`` on success; on an error leave no trace.

    Args:
        path: where the folder shall stand; an empty one may be there.
        overwrite: take the place of a folder that was converted before, too; of no other.

    Raises:
        UmieError: something else stands there, or no folder can.
    """
    _check_place(path, overwrite)
    with atomic_folder(path) as new:
        yield new
        _check_place(path, overwrite)  # it took a while


def _check_place(path: Path, overwrite: bool) -> None:
    try:
        if path.exists() and not path.is_dir():
            raise UmieError(f"{path}: is no folder: give another name")
        if not path.exists() or not any(path.iterdir()):
            return
        if not (path / MARK).is_file():
            raise UmieError(f"{path}: exists, and is no earlier conversion: give another name, or an empty folder")
    except OSError as error:
        raise UmieError(f"{path}: cannot write: {error.strerror}; give another name") from error
    if not overwrite:
        raise UmieError(f"{path}: holds an earlier conversion: give another name, or --overwrite")
