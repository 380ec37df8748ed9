"""An image tower split into a map and a head: one pass for the whole image and its regions, at any size.

Shapes: N images, R regions of each, C width of the map, h x w its cells, D width of the features, M vectors.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import interpolate

from umie.encoders.roi import pool_boxes

Size = tuple[int, int]  # height, width


class Spatial(nn.Module, ABC):
    """A tower in two parts: pixels to a map, and a head that turns a cell, or a mean of cells, into features.

    Args:
        tower: the image tower; it is never changed.
    """

    def __init__(self, tower: Any) -> None:
        super().__init__()
        self.tower = tower
        self.own_size: Size = _pair(tower.image_size)

    @property
    @abstractmethod
    def stride(self) -> Size:
        """Image pixels per cell of the map."""

    @property
    @abstractmethod
    def own_grid(self) -> Size:
        """Cells of the map at the tower's own size."""

    @abstractmethod
    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return the tower's features ``[N, D]`` of images ``[N, 3, H, W]``, and the map ``[N, C, h, w]``."""

    @abstractmethod
    def head(self, cells: Tensor) -> Tensor:
        """Return features ``[M, D]`` from means of cells ``[M, C]``."""

    @abstractmethod
    def positions(self, grid: Size) -> dict[str, Tensor]:
        """Return replacements for the tower's tensors, by name, for a map of ``grid`` cells."""

    def whole_and_map(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return ``forward`` of images of any size, with positions resized to it."""
        grid = (images.shape[2] // self.stride[0], images.shape[3] // self.stride[1])
        changed = {} if grid == self.own_grid else self.positions(grid)
        # functional_call restores the tower's own tensors; gradients reach them through their replacements
        found: tuple[Tensor, Tensor] = functional_call(
            self, {f"tower.{name}": value for name, value in changed.items()}, (images,)
        )
        return found

    def pooled(self, images: Tensor, boxes: Tensor) -> Tensor:
        """Return the features of whole images and of their regions.

        Args:
            images: ``[N, 3, H, W]``, sides multiples of ``stride`` or the tower's own.
            boxes: ``[N, 1 + R, 4]``, relative; the first of each image is the whole image.

        Returns:
            ``[N, 1 + R, D]``.
        """
        whole, maps = self.whole_and_map(images)
        if boxes.shape[1] == 1:  # some heads cannot handle zero cells
            return whole[:, None]
        cells = pool_boxes(maps, boxes[:, 1:])
        regions = self.head(cells.flatten(0, 1)).view(*cells.shape[:2], -1)
        return torch.cat([whole[:, None], regions], dim=1)


def resized(positions: Tensor, own: Size, grid: Size) -> Tensor:
    """Return positions ``[prefix + own cells, C]`` for another grid, resized as open_clip and timm resize them."""
    prefix = len(positions) - own[0] * own[1]
    cells = positions[prefix:].float().T.view(1, -1, *own)
    cells = interpolate(cells, grid, mode="bicubic", antialias=True)[0]
    return torch.cat([positions[:prefix], cells.flatten(1).T.to(positions.dtype)])


def _pair(size: int | tuple[int, int]) -> Size:
    return (size, size) if isinstance(size, int) else (size[0], size[1])
