"""Resize images of extreme shapes, which detectors cannot process; relative boxes stay the same."""

from __future__ import annotations

from PIL import Image

MAX_ASPECT = 8  # detectors would scale a longer image to a side of 0 pixels
MIN_SIDE = 32  # pixels; image processors mistake a side of 1 or 3 pixels for the channels
MAX_SIDE = 2048  # pixels of the long side of a resized image


def clamp_aspect_ratio(image: Image.Image) -> Image.Image:
    """Return the image, resized if it is tiny or much longer than wide."""
    short, long = sorted(image.size)
    if short >= MIN_SIDE and long <= short * MAX_ASPECT:
        return image
    scale = min(1.0, MAX_SIDE / long)
    least = max(MIN_SIDE, round(long * scale / MAX_ASPECT))
    width, height = (max(round(side * scale), least) for side in image.size)
    return image.resize((width, height), Image.Resampling.BILINEAR)
