"""`grid`: the cells of regular grids; the image's content is not used."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from PIL import Image

from umie.encoders.regions import registry
from umie.encoders.regions.base import Candidates, PixelProposer, ProposerConfig
from umie.errors import UmieError, check_whole, shown

MAX_SCALE = 32


@dataclass(frozen=True, kw_only=True)
class GridProposerConfig(ProposerConfig):
    """Options of the grid.

    Args:
        scales: cells per side; 2 gives the four quarters of the image. Coarser grids come first.
        nms: see ProposerConfig; the default keeps all cells of neighboring scales up to 6.
    """

    scales: Sequence[int] = (2, 3, 4)
    nms: float = 0.7

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.scales, list | tuple) or not self.scales:
            raise UmieError(f"scales is {shown(self.scales)}: use a list of cells per side, e.g. [2, 3, 4]")
        for scale in self.scales:
            check_whole("scales", scale, 1)
            if scale > MAX_SCALE:
                raise UmieError(f"scales contains {scale}: use at most {MAX_SCALE} cells per side")


@registry.register("grid")
class GridProposer(PixelProposer):
    """The cells of n x n grids, from coarse to fine, each grid from the top left in reading order.

    A cell of an n x n grid has the score 1 / n, whatever it shows.
    """

    Config = GridProposerConfig

    def __init__(self, config: GridProposerConfig) -> None:
        super().__init__(config)
        cells = [
            (x / n, y / n, (x + 1) / n, (y + 1) / n, 1 / n)
            for n in sorted(set(config.scales))
            for y in range(n)
            for x in range(n)
        ]
        table = torch.tensor(cells, dtype=torch.float64)
        self._cells = Candidates(table[:, :4], table[:, 4], [None] * len(cells))

    def _candidates(self, image: Image.Image, text: str | None) -> Candidates:
        return self._cells
