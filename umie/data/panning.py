"""Stills as clips: a camera moves over an image, so that the tracks of its regions are known exactly."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from PIL import Image

from umie.data.clips import FRAME_RATE, NUM_FRAMES, save_clip
from umie.data.media_folder import copy_media
from umie.data.splitting import with_shuffled_regions
from umie.errors import UmieError, at, check_whole
from umie.images import open_image
from umie.media import Clip
from umie.records import Box, Places, Record, Region, Span, Track
from umie.records.model import moved_places

SIZE = 224  # pixels of the longer side of a frame
ZOOM = (0.4, 0.7)  # the width and height of the smallest view, relative to the image
_WHOLE: Box = (0.0, 0.0, 1.0, 1.0)


def pan_records(
    records: Iterable[Record],
    folder: Path,
    name: str,
    *,
    size: int = SIZE,
    num_frames: int = NUM_FRAMES,
    shuffle: bool = False,
    seed: int = 0,
    written: list[Path] | None = None,
) -> Iterator[Record]:
    """Yield records with a clip in place of their image, ``NAME/1.apng`` and so on; a sound is copied to the folder.

    The regions become tracks, in the same order. Records without an image keep what they have.

    Args:
        records: records with images.
        folder: the folder that the paths of the new records are relative to.
        name: the folder of the clips inside it.
        size: pixels of the longer side of a frame; smaller images keep their size.
        num_frames: frames of a clip, at least 2.
        shuffle: whether to put the regions of each record into random order before; see ``with_shuffled_regions``.
        seed: seed of the camera and of the order.
        written: gets the path of each new file, so that a caller can remove them after an error.

    Raises:
        UmieError: an image cannot be read, or a record has a video already, or several images, or proposed places.
    """
    check_whole("size", size, 1)
    check_whole("num_frames", num_frames, 2)
    rng = random.Random(seed)
    (folder / name).mkdir(parents=True, exist_ok=True)
    copied: set[tuple[Path, Path]] = set()
    written = [] if written is None else written
    for number, record in enumerate(records, start=1):
        owner = f"record {record.id or number}"
        if record.video is not None:
            raise UmieError(f"{owner}: has a video, {record.video}: use records without")
        if record.more_images:
            raise UmieError(f"{owner}: has {len(record.images)} images, and a clip shows one: use records with one")
        if record.gold is not None:  # scores compare with it, and it has no tracks of this clip
            raise UmieError(f"{owner}: its places are proposed (it has gold): use pan before proposing places")
        views = draw_views(rng, num_frames)  # also for a record without an image, which so changes no other
        if shuffle:
            record = with_shuffled_regions(record, rng)
        with at(owner):
            copy_media(record, ("audio",), folder, copied, written)
            path = record.path("image")
            clip = None if path is None else film(open_image(path), views, size)
        if clip is not None:
            written.append(folder / f"{name}/{number}.apng")
            save_clip(clip, written[-1])
            record = filmed(record, f"{name}/{number}.apng", tracks_of(record.regions, views))
        yield replace(record, image_folder=str(folder))


def draw_views(rng: random.Random, num_frames: int) -> list[Box]:
    """Draw the part of the image that each frame shows: from the whole image to a part of it, or from it to the whole.

    The first or the last frame shows the whole image, so that each region is seen; between them, the edges move at a
    constant speed.
    """
    width = rng.uniform(*ZOOM)  # the same share of the height
    left, top = rng.uniform(0, 1 - width), rng.uniform(0, 1 - width)
    part = (left, top, min(1.0, left + width), min(1.0, top + width))
    shares = [number / (num_frames - 1) for number in range(num_frames)]
    if rng.random() < 0.5:
        shares.reverse()
    views = []
    for share in shares:
        x1, y1, x2, y2 = (edge + share * (goal - edge) for edge, goal in zip(_WHOLE, part, strict=True))
        views.append((x1, y1, x2, y2) if share else _WHOLE)
    return views


def film(image: Image.Image, views: Sequence[Box], size: int) -> Clip:
    """Return the frames of an image that show these parts of it; their longer side has at most ``size`` pixels."""
    scale = min(1, size / max(image.size))
    width, height = (max(1, round(side * scale)) for side in image.size)
    frames = []
    for x1, y1, x2, y2 in views:
        box = (x1 * image.width, y1 * image.height, x2 * image.width, y2 * image.height)
        frames.append(image.resize((width, height), Image.Resampling.BILINEAR, box=box))
    return Clip(tuple(frames), _times(len(views)), len(views) / FRAME_RATE)


def tracks_of(regions: Iterable[Region], views: Sequence[Box]) -> list[Track]:
    """Return the tracks of regions under the camera: the visible part of a box, None in frames that do not show it."""
    times = _times(len(views))
    return [Track(times, tuple(_seen(region.box, view) for view in views), region.label) for region in regions]


def filmed(record: Record, video: str, tracks: Sequence[Track]) -> Record:
    """Return a record with a video in place of its image, whose tracks stand for the regions of the same index."""

    def moved(_: Span | None, places: Places) -> Places:
        return Places(tracks=places.regions, segments=places.segments)

    return replace(record, image=None, regions=(), video=video, tracks=tuple(tracks), **moved_places(record, moved))


def _times(num_frames: int) -> tuple[float, ...]:
    return tuple(number / FRAME_RATE for number in range(num_frames))


def _seen(box: Box, view: Box) -> Box | None:
    """Return a box of the image in a frame that shows a part of it."""
    if view == _WHOLE:
        return box
    edges = []
    for first, last, low, high in ((box[0], box[2], view[0], view[2]), (box[1], box[3], view[1], view[3])):
        edges.append([round(min(1.0, max(0.0, (edge - low) / (high - low))), 5) for edge in (first, last)])
    (x1, x2), (y1, y2) = edges
    return (x1, y1, x2, y2) if x1 < x2 and y1 < y2 else None
