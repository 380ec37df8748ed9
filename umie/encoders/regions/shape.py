"""Images of shapes that detectors cannot take: squeezed, which leaves relative boxes where they are."""

from __future__ import annotations

from PIL import Image

MAX_ASPECT = 8  # a longer image would be scaled to a side of no pixels
MIN_SIDE = 32  # pixels; image processors take a side of 1 or 3 for the channels
MAX_SIDE = 2048  # pixels of the long side of an image that is squeezed


def tamed(image: Image.Image) -> Image.Image:
    """Return the image, or, if it is tiny or far longer than wide, one that is neither and shows the same."""
    short, long = sorted(image.size)
    if short >= MIN_SIDE and long <= short * MAX_ASPECT:
        return image
    scale = min(1.0, MAX_SIDE / long)
    least = max(MIN_SIDE, round(long * scale / MAX_ASPECT))
    width, height = (max(round(side * scale), least) for side in image.size)
    return image.resize((width, height), Image.Resampling.BILINEAR)
