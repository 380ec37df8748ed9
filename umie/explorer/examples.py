"""Examples from a data set: records with thumbnails, and the files of their media that the page shows."""

from __future__ import annotations

import base64
import hashlib
import io
import shutil
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image

from umie.errors import UmieError
from umie.images import open_image
from umie.media import open_clip
from umie.records import Medium, Record

THUMBNAIL = 160  # pixels of the longer side
PREVIEW = 1024  # the same of an image in the form; the model sees the image itself


@dataclass(frozen=True)
class Example:
    """A record of a data set.

    Args:
        place: where it is from, e.g. ``test.jsonl:7``.
        record: the record.
        thumbnail: its image or the first frame of its video as a data URI; None without any that can be read.
        files: by medium, a copy for the form; of a folder of frames there is none.
        digests: by medium, the hash of this copy, from which an upload differs.
    """

    place: str
    record: Record
    thumbnail: str | None = None
    files: dict[Medium, Path] = field(default_factory=dict)
    digests: dict[Medium, str] = field(default_factory=dict)


def read_examples(records: Iterable[tuple[str, Record]], folder: Path) -> list[Example]:
    """Return records as examples.

    Args:
        records: what each is called, and the record.
        folder: an existing directory, for copies of their media.
    """
    return [_example(number, place, record, folder) for number, (place, record) in enumerate(records)]


def digest_of(path: Path) -> str:
    """Return a hash of the content of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _example(number: int, place: str, record: Record, folder: Path) -> Example:
    files: dict[Medium, Path] = {}
    thumbnail = None
    for medium in record.media:
        try:
            source = record.resolved(medium)
            if medium == "image":
                picture = open_image(source)
                files[medium] = folder / f"example-{number}.png"
                _smaller(picture, PREVIEW).save(files[medium])
                thumbnail = _data_uri(picture)
                continue
            if medium == "video":
                thumbnail = thumbnail or _data_uri(open_clip(source, 1).frames[0])
            if isinstance(source, Path) and source.is_file():
                files[medium] = folder / f"example-{number}-{medium}{source.suffix}"
                shutil.copyfile(source, files[medium])
        except UmieError:
            continue  # the answer says why
    digests = {medium: digest_of(path) for medium, path in files.items()}
    return Example(place, record, thumbnail, files, digests)


def _smaller(image: Image.Image, side: int) -> Image.Image:
    copy = image.copy()
    copy.thumbnail((side, side))
    return copy


def _data_uri(image: Image.Image) -> str:
    buffer = io.BytesIO()
    _smaller(image, THUMBNAIL).save(buffer, "JPEG", quality=85)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"
