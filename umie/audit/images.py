"""Existence of media, and exact and near duplicates of images."""

from __future__ import annotations

import hashlib
import os
import stat
from collections import defaultdict
from collections.abc import Iterator, Mapping
from enum import Enum
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

from umie.errors import UmieError
from umie.files import MAX_HEAD, check_pointer, open_regular
from umie.images import decode_image, read_image_bytes, stored_size
from umie.media import open_clip, open_sound
from umie.records import Medium, Record

DISTANCE = 3  # bits of 64 by which the hashes of near duplicates may differ; so at least one of 4 bands agrees
_BANDS = 4
_POINTER_BYTES = 1024  # the largest size of a Git LFS pointer


# of each medium and file that was opened: its seconds, or why it cannot be read
Durations: TypeAlias = dict[tuple[Medium, Path], float | UmieError]


class Presence(Enum):
    """Whether the image, sound or video of a record exists."""

    NONE = "the record has none"
    FOUND = "found"
    MISSING = "does not exist"
    EMPTY = "is an empty file"
    NO_FILE = "is not a regular file"
    UNREADABLE = "is not readable"
    POINTER = "is a Git LFS pointer (run `git lfs pull`)"
    OUTSIDE = "is not a file name inside the image folder"


def presence(record: Record, medium: Medium = "image", number: int = 0) -> Presence:
    """Return whether a medium of a record exists and is readable; only small files, perhaps pointers, are opened.

    A video may be a folder of frames. A plain file name costs one system call, so that a million records can be
    checked.
    """
    given = record.of(medium)
    name = given[number] if given else None
    if not isinstance(name, str):
        return Presence.NONE if name is None else Presence.FOUND  # in memory
    try:
        path = f"{record.image_folder}/{name}"
        is_plain = record.image_folder is not None and "/" not in name and name not in ("", ".", "..")
        status = os.lstat(path) if is_plain else None
        if status is None or stat.S_ISLNK(status.st_mode):
            path = str(record.path(medium, number))
            status = Path(path).stat()
    except FileNotFoundError:
        return Presence.MISSING
    except (UmieError, ValueError):
        return Presence.OUTSIDE
    except OSError:  # the name is too long, or a directory may not be entered
        return Presence.UNREADABLE
    if medium == "video" and stat.S_ISDIR(status.st_mode):
        return Presence.FOUND
    if not stat.S_ISREG(status.st_mode):
        return Presence.NO_FILE
    if not status.st_size:
        return Presence.EMPTY
    if not os.access(path, os.R_OK):
        return Presence.UNREADABLE
    return Presence.POINTER if status.st_size < _POINTER_BYTES and _is_pointer(path) else Presence.FOUND


def seconds_of(record: Record, medium: Medium, number: int, known: Durations) -> float:
    """Return the duration of a sound or a video, or 0 of an image, whose header is read.

    ``known`` has the results for other files, and gets that for this one.

    Raises:
        UmieError: the file cannot be read, or contains something else.
    """
    path = record.path(medium, number)
    found = None if path is None else known.get((medium, path))
    if found is None:
        try:
            found = _seconds(medium, record.resolved(medium, number))
        except UmieError as error:
            found = error
        if path is not None:
            known[medium, path] = found
    if isinstance(found, UmieError):
        raise found
    return found


def _seconds(medium: Medium, source: Any) -> float:
    if medium == "audio":
        return open_sound(source).seconds
    if medium == "video":
        return open_clip(source, 1).seconds
    if isinstance(source, Path):
        stored_size(source)
    return 0.0


def _is_pointer(path: str) -> bool:
    try:
        with open_regular(path) as file:
            check_pointer(file.read(MAX_HEAD))
    except UmieError:
        return True
    except OSError:
        return False
    return False


class ImageHashes(NamedTuple):
    """The SHA-256 of the bytes of an image, and its difference hash; None if the image is nearly uniform."""

    content: str
    difference: int | None


def hashes(path: Path) -> ImageHashes:
    """Return the hashes of an image file.

    The difference hash compares horizontally adjacent gray values of the image at 9 x 8 pixels. A nearly uniform image
    (fewer than 4 bits set or unset) has none, because it would match all other nearly uniform images.

    Raises:
        UmieError: the file cannot be read as an image.
    """
    data = read_image_bytes(path)
    pixels = decode_image(data, str(path)).convert("L").resize((9, 8)).tobytes()
    bits = 0
    for row in range(8):
        for column in range(8):
            bits = bits << 1 | (pixels[row * 9 + column] < pixels[row * 9 + column + 1])
    return ImageHashes(hashlib.sha256(data).hexdigest(), bits if 4 <= bits.bit_count() <= 60 else None)


def near_images(differences: Mapping[str, int], distance: int = DISTANCE) -> Iterator[tuple[str, str, int]]:
    """Yield every pair of names whose difference hashes differ in at most ``distance`` (0..3) bits.

    Two hashes that differ in at most 3 bits agree in at least one of 4 bands of 16 bits, so it is enough to compare
    hashes with a common band.
    """
    if not 0 <= distance < _BANDS:
        raise UmieError(f"distance is {distance}: use 0 to {_BANDS - 1} bits")
    width = 64 // _BANDS
    seen: set[tuple[str, str]] = set()
    for band in range(_BANDS):
        groups: dict[int, list[str]] = defaultdict(list)
        for name, value in differences.items():
            key = value >> band * width & (1 << width) - 1
            for other in groups[key]:
                differing = (differences[other] ^ value).bit_count()
                if differing <= distance and (other, name) not in seen:
                    seen.add((other, name))
                    yield other, name, differing
            groups[key].append(name)
