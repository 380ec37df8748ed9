"""Pool maps under boxes by a matrix product: the mean under a box is linear in the map, and separable."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

Pooling = Literal["precise", "roi_align"]

SAMPLES = 14  # RoIAlign: 7 cells per side of a region, with 2 samples each
MIN_WIDTH = 1e-3  # precise: narrower boxes are widened to this fraction of a cell; padding boxes have no area


def pool_boxes(maps: Tensor, boxes: Tensor, pooling: Pooling = "precise") -> Tensor:
    """Return the mean of ``maps [N, C, h, w]`` under each of their boxes, ``[N, R, C]``, in the dtype of the maps.

    Boxes ``[N, R, 4]`` are x1, y1, x2, y2, relative to the map (0..1); for ``pooling`` see ``box_weights``. The sum is
    computed in at least float32, even under autocast: weights in bfloat16 would not add up to 1.
    """
    with torch.autocast(maps.device.type, enabled=False):
        cells = maps.permute(0, 2, 3, 1).flatten(1, 2)  # a view, channels last or not
        cells = cells.to(torch.promote_types(maps.dtype, torch.float32))
        weights = box_weights(boxes, maps.shape[2], maps.shape[3], pooling)
        return (weights.to(cells.dtype) @ cells).to(maps.dtype)


def pool_slots(maps: Tensor, boxes: Tensor, pooling: Pooling = "precise") -> Tensor:
    """Return ``[N, V, C]``: the mean of ``maps [N, C, h, w]``, then the mean under each of ``boxes[:, 1:]``.

    Relative boxes are scaled to the map, whose last cell extends beyond the image if the stride does not divide a side.
    """
    return torch.cat([maps.mean((2, 3))[:, None], pool_boxes(maps, boxes[:, 1:], pooling)], dim=1)


def box_weights(boxes: Tensor, height: int, width: int, pooling: Pooling = "precise") -> Tensor:
    """Return the weight of each cell of a map in the mean under each box, float32 ``[..., R, height * width]``.

    Boxes ``[..., R, 4]`` are relative to the map of ``height`` x ``width`` cells. As in RoIAlign, the map is
    interpolated linearly between the centers of its cells, and is constant from the outermost centers to the border.
    "precise" integrates this surface over the box, which gives its exact mean: for a box around the whole map the mean
    of all cells, for a tiny box the value at its position. "roi_align" averages 14 x 14 samples, which equals RoIAlign
    (7 x 7 cells of 2 x 2 samples, aligned) averaged over its cells.

    Source: precise RoI pooling, Jiang et al. 2018 (IoU-Net), section 3.2, here with RoIAlign's border instead of
    zeros; RoIAlign: He et al. 2017 (Mask R-CNN).
    """
    along = _precise if pooling == "precise" else _roi_align
    x1, y1, x2, y2 = boxes.float().unbind(-1)
    return (along(y1, y2, height)[..., :, None] * along(x1, x2, width)[..., None, :]).flatten(-2)


def _precise(low: Tensor, high: Tensor, cells: int) -> Tensor:
    """Return the weight of each cell, ``[R, cells]``, in the mean from ``low [R]`` to ``high [R]`` along one side."""
    center = (low + high) / 2 * cells - 0.5  # in cells; the center of cell 0 is at 0
    reach = ((high - low) * cells).clamp(min=MIN_WIDTH) / 2
    # the surface is linear between centers, so its integral is the length times the value in the middle
    left = torch.arange(-1, cells, device=low.device)
    start = torch.maximum((center - reach)[..., None], left)
    stop = torch.minimum((center + reach)[..., None], left + 1)
    length = (stop - start).clamp(min=0)
    to_right = length * ((start + stop) / 2 - left)
    to_left = length - to_right
    shares = to_left[..., 1:] + to_right[..., :-1]
    shares[..., 0] += to_left[..., 0]  # the map is constant left of the first center and right of the last
    shares[..., -1] += to_right[..., -1]
    return shares / shares.sum(-1, keepdim=True)


def _roi_align(low: Tensor, high: Tensor, cells: int) -> Tensor:
    """Return the same weights for the mean of RoIAlign's samples."""
    places = (torch.arange(SAMPLES, device=low.device) + 0.5) / SAMPLES
    at = (low[..., None] + (high - low)[..., None] * places) * cells - 0.5
    distance = at.clamp(0, cells - 1)[..., None] - torch.arange(cells, device=low.device)
    return (1 - distance.abs()).clamp(min=0).mean(-2)
