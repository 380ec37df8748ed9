"""Regions drawn into their picture, so that people can look at what was proposed."""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont

from umie.records import Region

COLOURS = ("#e6194b", "#3cb44b", "#4363d8", "#f58231", "#911eb4", "#008080", "#9a6324", "#808000")
_LINE = 250  # pixels of the long side for one pixel of a line's width
_LETTER = 45  # pixels of the long side for one of a letter's height


def draw_regions(image: Image.Image, regions: Sequence[Region]) -> Image.Image:
    """Return a copy of a picture with its regions: a frame for each, with O1, O2, ... and the label.

    Args:
        image: the picture, as displayed, in RGB.
        regions: its regions; they are numbered in this order, as targets name them.
    """
    drawn = image.copy()
    draw = ImageDraw.Draw(drawn)
    long = max(drawn.size)
    width = max(1, long // _LINE)
    font = ImageFont.load_default(size=max(9, long // _LETTER))
    for index in reversed(range(len(regions))):  # the first on top
        region, colour = regions[index], COLOURS[index % len(COLOURS)]
        x1, y1, x2, y2 = (round(edge * side) for edge, side in zip(region.box, drawn.size * 2, strict=True))
        draw.rectangle((x1, y1, max(x1, x2 - 1), max(y1, y2 - 1)), outline=colour, width=width)
        text = f"O{index + 1}" + (f" {region.label}" if region.label else "")
        place = (x1 + width, y1 + width)
        draw.rectangle(draw.textbbox(place, text, font=font), fill=colour)
        draw.text(place, text, fill="white", font=font)
    return drawn
