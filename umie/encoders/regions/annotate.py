"""Add proposed regions to the records of a data set, with a policy for unreadable images; draw regions."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from umie.encoders.regions.base import AnnotationError, Proposer
from umie.errors import UmieError
from umie.files import atomic_write
from umie.images import open_image
from umie.records import Record, Region
from umie.types import check_image_policy

COLORS = ("#e6194b", "#3cb44b", "#4363d8", "#f58231", "#911eb4", "#008080", "#9a6324", "#808000")
_LINE = 250  # pixels of the long side per pixel of line width
_LETTER = 45  # pixels of the long side per pixel of font size


@dataclass
class AnnotateStats:
    """Counts of what ``annotate`` and ``draw`` did."""

    records: int = 0  # yielded
    images: int = 0  # records with an image
    proposals: int = 0  # regions added
    cut: int = 0  # regions removed from records that have more than the proposer's ``top``
    drawn: int = 0  # images written
    unreadable: Counter[str] = field(default_factory=Counter)  # distinct images by "image" or "annotation"
    left_out: Counter[str] = field(default_factory=Counter)  # records left out for that reason


def annotate(
    records: Iterable[Record],
    proposer: Proposer,
    stats: AnnotateStats,
    *,
    missing_images: str = "error",
    on_unreadable: Callable[[str, UmieError], None] | None = None,
    on_image: Callable[[], None] | None = None,
) -> Iterator[Record]:
    """Yield records, read lazily, with proposed regions after their own, and update ``stats``; see ``Proposer.fill``.

    For a record whose image or annotation cannot be read, ``missing_images="error"`` raises UmieError, "text_only"
    yields it unchanged, and "skip" leaves it out; ``on_unreadable`` is called once per such image with ``"image"`` or
    ``"annotation"`` and the error. ``on_image`` is called after each record that has an image.
    """
    check_image_policy(missing_images)
    unreadable: set[object] = set()
    errors: list[UmieError] = []
    originals, copies = itertools.tee(records)
    results = proposer.fill(copies, None if missing_images == "error" else errors.append)
    for record, filled in zip(originals, results, strict=True):
        kind = ""
        if errors:
            error = errors.pop()
            kind = "annotation" if isinstance(error, AnnotationError) else "image"
            if record.image not in unreadable:
                unreadable.add(record.image)
                stats.unreadable[kind] += 1
                if on_unreadable is not None:
                    on_unreadable(kind, error)
        if on_image is not None and record.image is not None:
            on_image()
        if kind and missing_images == "skip":
            stats.left_out[kind] += 1
            continue
        added = len(filled.regions) - len(record.regions)
        stats.records += 1
        stats.images += filled.image is not None
        stats.proposals += max(0, added)
        stats.cut += max(0, -added)
        yield filled
    proposer.check()


def draw(records: Iterable[Record], folder: Path, limit: int, stats: AnnotateStats) -> Iterator[Record]:
    """Yield the records and write the first ``limit`` readable images, with their regions drawn, as PNG files."""
    for record in records:
        if record.image is not None and stats.drawn < limit:
            try:
                path = record.image_path()
                image = _with_regions(open_image(record.image if path is None else path), record.regions)
            except UmieError:
                pass  # already reported, or the proposer does not open images
            else:
                stats.drawn += 1
                name = "image" if path is None else path.stem[:100]
                with atomic_write(folder / f"{stats.drawn:04d}_{name}.png", "wb") as file:
                    image.save(file, "PNG")
        yield record


def _with_regions(image: Image.Image, regions: Sequence[Region]) -> Image.Image:
    """Return the image with a frame, a name and a label for each region; ``regions[0]`` is O1, as in targets."""
    canvas = ImageDraw.Draw(image)
    long = max(image.size)
    width = max(1, long // _LINE)
    font = ImageFont.load_default(size=max(9, long // _LETTER))
    labels: list[tuple[tuple[float, float, float, float], str, str]] = []
    for index, region in enumerate(regions):
        color = COLORS[index % len(COLORS)]
        x1, y1, x2, y2 = (round(edge * side) for edge, side in zip(region.box, image.size * 2, strict=True))
        canvas.rectangle((x1, y1, max(x1, x2 - 1), max(y1, y2 - 1)), outline=color, width=width)
        text = f"O{index + 1}" + (f" {region.label}" if region.label else "")
        left, top, right, bottom = canvas.textbbox((x1 + width, y1 + width), text, font=font)
        while top < image.height and any(
            left < box[2] and box[0] < right and top < box[3] and box[1] < bottom for box, _, _ in labels
        ):
            top, bottom = top + 1, bottom + 1  # boxes with a common corner would hide each other's labels
        labels.append(((left, top, right, bottom), text, color))
    for box, text, color in labels:  # above all frames
        canvas.rectangle(box, fill=color)
        canvas.text(((box[0] + box[2]) / 2, (box[1] + box[3]) / 2), text, fill="white", font=font, anchor="mm")
    return image
