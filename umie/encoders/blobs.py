"""Bodies in images and frames: connected pixels that differ from the background."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image

from umie.encoders.proposing import ProposerConfig
from umie.errors import check_share, check_whole

Pixels: TypeAlias = npt.NDArray[np.uint8]
Mask: TypeAlias = npt.NDArray[np.bool_]
Boxes: TypeAlias = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class BlobConfig(ProposerConfig):
    """Options of finding bodies.

    Args:
        max_side: pixels of the long side to which larger images are reduced.
        threshold: difference of a color channel (1 to 255) from which on a pixel is part of a body.
        close: share of the long side (0..1) up to which gaps inside a body are filled; 0 for none.
        min_area: share of the image (0..1) that a body's box covers at least.
    """

    max_side: int = 360
    threshold: int = 20
    close: float = 0.01
    min_area: float = 0.001

    def __post_init__(self) -> None:
        super().__post_init__()
        check_whole("max_side", self.max_side, 8)
        check_whole("threshold", self.threshold, 1)
        check_share("close", self.close)
        check_share("min_area", self.min_area)


def pixels_of(images: Sequence[Image.Image], max_side: int) -> Pixels:
    """Return the pixels of images in RGB ``[N, height, width, 3]``, all of the size of the first one, reduced."""
    width, height = images[0].size
    scale = min(1.0, max_side / max(width, height))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return np.stack(
        [np.asarray(image if image.size == size else image.resize(size, Image.Resampling.BOX)) for image in images]
    )


def ground_of(pixels: Pixels) -> npt.NDArray[np.float64]:
    """Return the color of the ground ``[3]``: the median of the borders of images ``[N, height, width, 3]``."""
    borders = [pixels[:, 0], pixels[:, -1], pixels[:, :, 0], pixels[:, :, -1]]
    ground: npt.NDArray[np.float64] = np.median(np.concatenate([border.reshape(-1, 3) for border in borders]), axis=0)
    return ground


def differs(pixels: Pixels, background: npt.NDArray[Any], threshold: int) -> Mask:
    """Return which pixels of images ``[N, height, width, 3]`` are not of a background ``[3]`` or that of an image."""
    masks: Mask = np.stack([np.abs(image - background).max(axis=-1) >= threshold for image in pixels])
    return masks


def boxes_of(mask: Mask, config: BlobConfig) -> Boxes:
    """Return the boxes of the connected pixels of a mask ``[height, width]``, relative to it ``[N, 4]``."""
    from scipy import ndimage  # here, because it is slow to import

    neighbors = np.ones((3, 3), bool)
    close = int(config.close * max(mask.shape) / 2)  # of both sides of a gap
    filled = ndimage.binary_closing(np.pad(mask, close), neighbors, close) if close else mask
    numbered, _ = ndimage.label(filled[close : close + mask.shape[0], close : close + mask.shape[1]], neighbors)
    height, width = mask.shape
    boxes = [
        (across.start / width, down.start / height, across.stop / width, down.stop / height)
        for down, across in ndimage.find_objects(numbered)
    ]
    table = np.array(boxes, np.float64).reshape(-1, 4)
    large: Boxes = table[(table[:, 2:] - table[:, :2]).prod(axis=1) >= config.min_area]
    return large
