"""Hashes of sound and video."""

from __future__ import annotations

import hashlib
from pathlib import Path

from umie.media.clip import Clip, frame_paths
from umie.media.container import is_folder, opened
from umie.media.sound import Sound


def media_digest(source: Sound | Clip | str | Path) -> str:
    """Return a hash of everything in sound or video that features can depend on.

    Args:
        source: a path, for a hash of the bytes, and of the names in a folder of frames; a sound or a clip, for a hash
            of its samples, or of its frames and times.

    Raises:
        UmieError: the file or a file of the folder cannot be read.
    """
    digest = hashlib.sha256()
    if isinstance(source, Sound):
        digest.update(f"sound {source.rate} {len(source.samples)} ".encode())
        digest.update(source.samples.tobytes())
    elif isinstance(source, Clip):
        digest.update(f"clip {source.times} {source.seconds} ".encode())
        for frame in source.frames:
            digest.update(f"RGB {frame.width} {frame.height} ".encode() + frame.tobytes())
    elif is_folder(source):
        for path in frame_paths(Path(source)):
            digest.update(f"{path.name!r} {media_digest(path)} ".encode())
    else:
        with opened(source, "sound or clip") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    return digest.hexdigest()
