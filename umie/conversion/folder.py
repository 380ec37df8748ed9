"""A folder that is written beside its place and renamed at the end, so that nobody meets half of one."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from umie.errors import UmieError

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
    target = path.resolve()
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
        for file in new.iterdir():
            file.chmod(0o666 & ~umask)  # safetensors writes for its owner alone
            with file.open("rb") as handle:
                os.fsync(handle.fileno())
        _check_place(path, overwrite)  # it took a while
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
