"""Copies of the media of records in a new folder: the media of a record are all in one."""

from __future__ import annotations

import filecmp
import shutil
from collections.abc import Iterable
from pathlib import Path

from umie.errors import UmieError
from umie.files import atomic_write, inside
from umie.media.clip import frame_paths
from umie.media.container import is_folder, opened
from umie.records import Medium, Record


def copy_media(
    record: Record,
    media: Iterable[Medium],
    folder: Path,
    copied: set[tuple[Path, Path]],
    written: list[Path] | None = None,
) -> None:
    """Copy media of a record to the same names in another folder.

    Args:
        record: the record.
        media: which of its media; those that it does not have are skipped.
        folder: the folder.
        copied: the files that are copied already, with their copies; those that this call copies are added.
        written: gets the paths of new files.

    Raises:
        UmieError: a file cannot be read or written, or its name leads out of one of the folders, or is that of another
            file there.
    """
    wanted = set(media)
    for medium, number in (each for each in record.numbered_media if each[0] in wanted):
        path = record.path(medium, number)
        if path is None:
            continue
        target = inside(folder, record.of(medium)[number])
        frames = frame_paths(path) if is_folder(path) else ()  # a video may be a folder of frames
        for other in target.glob("[!.]*") if frames else ():
            if not (path / other.name).exists():  # it would be a frame of the copy
                raise UmieError(f"{other}: exists, and {path} has no such file: use another output directory")
        for source, new in [(frame, target / frame.name) for frame in frames] or [(path, target)]:
            if (source, new) not in copied:
                if written is not None and not new.exists():
                    written.append(new)
                _copy(source, new, medium)
                copied.add((source, new))


def _copy(source: Path, new: Path, medium: Medium) -> None:
    if not new.exists():
        with atomic_write(new, "wb") as copy, opened(source, medium) as file:
            shutil.copyfileobj(file, copy)
        return
    with opened(source, medium):
        is_equal = filecmp.cmp(source, new, shallow=False)
    if not is_equal:
        raise UmieError(f"{new}: exists, and is not the same as {source}: use another output directory")
