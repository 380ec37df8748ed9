"""Fill a feature cache from records, and list the images that cannot be read."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from umie.encoders.cache.cached_encoder import CachedEncoder, Regions
from umie.errors import UmieError
from umie.files import atomic_write
from umie.images import ImageSource
from umie.records import Record
from umie.types import check_image_policy


@dataclass(frozen=True)
class UnreadableImage:
    """A record whose image cannot be read, and why."""

    id: str | None
    image: str
    reason: str


def fill_from_records(
    cached: CachedEncoder,
    records: Iterable[Record],
    *,
    missing_images: str = "skip",
    batch_size: int = 8,
    on_record: Callable[[], None] | None = None,
) -> list[UnreadableImage]:
    """Encode the images of records that the cache does not have yet; return the images that cannot be read.

    Args:
        cached: the encoder with its cache.
        records: read lazily; those without an image are ignored.
        missing_images: "error" raises for the first image that cannot be read; otherwise such images are returned.
        batch_size: number of images per forward pass.
        on_record: called after each record that has an image.

    Raises:
        UmieError: an image cannot be read, and ``missing_images`` is "error".
    """
    check_image_policy(missing_images)
    unreadable: list[UnreadableImage] = []
    pending: dict[int, Record] = {}

    def finish() -> None:
        if on_record is not None:
            on_record()

    def refuse(record: Record, error: UmieError) -> None:
        if missing_images == "error":
            raise UmieError(f"record {record.id!r}: {error}; fix it, or set missing_images to 'skip'") from error
        unreadable.append(UnreadableImage(record.id, str(record.image), str(error)))

    def items() -> Iterator[tuple[ImageSource | None, Regions]]:
        index = 0
        for record in records:
            if record.image is None:
                continue
            try:
                path = record.image_path()
            except UmieError as error:  # the path leaves the image folder
                refuse(record, error)
                finish()
                continue
            pending[index] = record
            index += 1
            yield record.image if path is None else path, record.regions

    def finish_item(index: int) -> None:
        del pending[index]
        finish()

    cached.fill(
        items(),
        batch_size=batch_size,
        on_item=finish_item,
        on_error=lambda index, error: refuse(pending[index], error),
    )
    return unreadable


def write_unreadable(path: str | Path, unreadable: Sequence[UnreadableImage]) -> None:
    """Write a JSONL file with one line per unreadable image; an existing list is replaced even if there are none."""
    path = Path(path)
    if unreadable or path.exists():
        with atomic_write(path) as file:
            file.writelines(json.dumps(asdict(item), ensure_ascii=False) + "\n" for item in unreadable)
