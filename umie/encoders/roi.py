"""Pooling maps under boxes as one matrix product: the mean under a box is linear in the map, and separable."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

Pooling = Literal["precise", "roi_align"]

SAMPLES = 14  # RoIAlign: 7 cells of a region, 2 samples each, per side
LEAST = 1e-3  # precise: narrower boxes are widened to this share of a map's cell; padding has boxes without area


def pool_boxes(maps: Tensor, boxes: Tensor, pooling: Pooling = "precise") -> Tensor:
    """Return the mean of every map under each of its boxes.

    The sum runs in float32 at least, also under autocast: weights in bfloat16 would not add up to 1.

    Args:
        maps: ``[N, C, h, w]``, in any memory format.
        boxes: ``[N, R, 4]``: x1, y1, x2, y2, relative to the map (0..1).
        pooling: see ``box_weights``.

    Returns:
        ``[N, R, C]`` in the dtype of the maps.
    """
    with torch.autocast(maps.device.type, enabled=False):
        cells = maps.permute(0, 2, 3, 1).flatten(1, 2)  # a view, channels last or not
        cells = cells.to(torch.promote_types(maps.dtype, torch.float32))
        weights = box_weights(boxes, maps.shape[2], maps.shape[3], pooling)
        return (weights.to(cells.dtype) @ cells).to(maps.dtype)


def box_weights(boxes: Tensor, height: int, width: int, pooling: Pooling = "precise") -> Tensor:
    """Return by how much each cell of a map counts in the mean under each box.

    Between the centres of its cells a map is interpolated linearly, and constant from the outermost centres to the
    border, as in RoIAlign. "precise" is the integral of that surface over the box: its mean exactly, so that a box
    around the whole map gives the plain mean of the cells, and the smallest box the value at its place. "roi_align"
    is the mean of 14 x 14 samples of it: what RoIAlign (7 x 7 cells of 2 x 2 samples, aligned) gives when its cells
    are averaged.

    Source: precise RoI pooling, Jiang et al. 2018 (IoU-Net), section 3.2, here with RoIAlign's border instead of
    zeros; RoIAlign: He et al. 2017 (Mask R-CNN).

    Args:
        boxes: ``[..., R, 4]``: x1, y1, x2, y2, relative to the map (0..1).
        height: cells of the map from top to bottom.
        width: cells from left to right.
        pooling: "precise" or "roi_align".

    Returns:
        float32 ``[..., R, height * width]``; every row adds up to 1.
    """
    along = _precise if pooling == "precise" else _roi_align
    x1, y1, x2, y2 = boxes.float().unbind(-1)
    return (along(y1, y2, height)[..., :, None] * along(x1, x2, width)[..., None, :]).flatten(-2)


def _precise(low: Tensor, high: Tensor, cells: int) -> Tensor:
    """Return the share of each cell ``[R, cells]`` in the mean from ``low [R]`` to ``high [R]`` along one side."""
    centre = (low + high) / 2 * cells - 0.5  # in cells; the centre of cell 0 is at 0
    reach = ((high - low) * cells).clamp(min=LEAST) / 2
    # the surface is linear from centre to centre: there its integral is the length times the value in the middle
    left = torch.arange(-1, cells, device=low.device)
    start = torch.maximum((centre - reach)[..., None], left)
    stop = torch.minimum((centre + reach)[..., None], left + 1)
    length = (stop - start).clamp(min=0)
    to_right = length * ((start + stop) / 2 - left)
    to_left = length - to_right
    shares = to_left[..., 1:] + to_right[..., :-1]
    shares[..., 0] += to_left[..., 0]  # left of the first centre and right of the last one the map is constant
    shares[..., -1] += to_right[..., -1]
    return shares / shares.sum(-1, keepdim=True)


def _roi_align(low: Tensor, high: Tensor, cells: int) -> Tensor:
    """Return the same share for the mean of samples."""
    places = (torch.arange(SAMPLES, device=low.device) + 0.5) / SAMPLES
    at = (low[..., None] + (high - low)[..., None] * places) * cells - 0.5
    distance = at.clamp(0, cells - 1)[..., None] - torch.arange(cells, device=low.device)
    return (1 - distance.abs()).clamp(min=0).mean(-2)
