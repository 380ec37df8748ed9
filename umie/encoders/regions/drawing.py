"""Draw regions into their image, for inspection."""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont

from umie.records import Region

COLORS = ("#e6194b", "#3cb44b", "#4363d8", "#f58231", "#911eb4", "#008080", "#9a6324", "#808000")
_LINE = 250  # pixels of the long side per pixel of line width
_LETTER = 45  # pixels of the long side per pixel of font size


def draw_regions(image: Image.Image, regions: Sequence[Region]) -> Image.Image:
    """Return a copy of an image with a frame, a name and a label for each region.

    Args:
        image: the image as displayed, in RGB.
        regions: its regions; ``regions[0]`` is named O1, as in targets.
    """
    drawn = image.copy()
    draw = ImageDraw.Draw(drawn)
    long = max(drawn.size)
    width = max(1, long // _LINE)
    font = ImageFont.load_default(size=max(9, long // _LETTER))
    taken: list[tuple[float, float, float, float]] = []
    labels = []
    for index in range(len(regions)):
        region, color = regions[index], COLORS[index % len(COLORS)]
        x1, y1, x2, y2 = (round(edge * side) for edge, side in zip(region.box, drawn.size * 2, strict=True))
        draw.rectangle((x1, y1, max(x1, x2 - 1), max(y1, y2 - 1)), outline=color, width=width)
        text = f"O{index + 1}" + (f" {region.label}" if region.label else "")
        left, top, right, bottom = draw.textbbox((x1 + width, y1 + width), text, font=font)
        while top < drawn.height and any(_overlap((left, top, right, bottom), other) for other in taken):
            top, bottom = top + 1, bottom + 1  # boxes with a common corner would hide each other's labels
        taken.append((left, top, right, bottom))
        labels.append(((left, top, right, bottom), text, color))
    for box, text, color in labels:  # above all frames
        draw.rectangle(box, fill=color)
        draw.text(((box[0] + box[2]) / 2, (box[1] + box[3]) / 2), text, fill="white", font=font, anchor="mm")
    return drawn


def _overlap(one: tuple[float, float, float, float], other: tuple[float, float, float, float]) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]
