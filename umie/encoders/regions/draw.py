"""Draw the regions of records into their images."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from umie.encoders.annotate import AnnotateStats
from umie.errors import UmieError
from umie.files import atomic_write
from umie.images import open_image
from umie.records import Record, Region

COLORS = ("#e6194b", "#3cb44b", "#4363d8", "#f58231", "#911eb4", "#008080", "#9a6324", "#808000")
_LINE = 250  # pixels of the long side per pixel of line width
_LETTER = 45  # pixels of the long side per pixel of font size


def draw(records: Iterable[Record], folder: Path, limit: int, stats: AnnotateStats) -> Iterator[Record]:
    """Yield the records and write the first ``limit`` readable images, with their regions drawn, as PNG files."""
    for record in records:
        for number in range(len(record.images)):
            if stats.drawn == limit:
                break
            try:
                path = record.path("image", number)
                image = _with_regions(open_image(record.resolved("image", number)), record.regions, number)
            except UmieError:
                continue  # already reported, or the proposer does not open images
            stats.drawn += 1
            name = "image" if path is None else path.stem[:100]
            with atomic_write(folder / f"{stats.drawn:04d}_{name}.png", "wb") as file:
                image.save(file, "PNG")
        yield record


def _with_regions(image: Image.Image, regions: Sequence[Region], number: int) -> Image.Image:
    """Return the image with a frame, a name and a label for each of its regions; ``regions[0]`` is O1, as in targets.

    ``number`` is that of the image, whose regions are drawn.
    """
    canvas = ImageDraw.Draw(image)
    long = max(image.size)
    width = max(1, long // _LINE)
    font = ImageFont.load_default(size=max(9, long // _LETTER))
    labels: list[tuple[tuple[float, float, float, float], str, str]] = []
    for index, region in enumerate(regions):
        if region.image != number:
            continue
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
