"""Copies of the media of records in a new folder: the media of a record are all in one."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path

from umie.files import atomic_write, inside
from umie.media.clip import frame_paths
from umie.media.container import is_folder, opened
from umie.records import Medium, Record


def copy_media(record: Record, media: Iterable[Medium], folder: Path, copied: set[Path]) -> None:
    """Copy media of a record to the same names in another folder.

    Args:
        record: the record.
        media: which of its media; those that it does not have are skipped.
        folder: the folder.
        copied: the files that are there already; those that this call copies are added.

    Raises:
        UmieError: a file cannot be read or written, or its name leads out of one of the folders.
    """
    wanted = set(media)
    for medium, number in (each for each in record.numbered_media if each[0] in wanted):
        path = record.path(medium, number)
        if path is None:
            continue
        target = inside(folder, record.of(medium)[number])
        frames = frame_paths(path) if is_folder(path) else ()  # a video may be a folder of frames
        for source, new in [(frame, target / frame.name) for frame in frames] or [(path, target)]:
            if new not in copied and not (new.exists() and new.samefile(source)):
                with atomic_write(new, "wb") as copy, opened(source, medium) as file:
                    shutil.copyfileobj(file, copy)
            copied.add(new)
