"""The image towers of open_clip, split into a map and a head: one pass for an image and its regions, at any size.

Shapes: N images, R regions of each, C width of the map, h x w its cells, D width of the features, M vectors.
"""

from __future__ import annotations

import copy
import functools
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import interpolate

from umie.encoders.clip.models import build_tower
from umie.encoders.roi import pool_boxes
from umie.errors import UmieError
from umie.weights import first_line

Size = tuple[int, int]  # height, width

AVERAGE = ("avg", "fast", "fastavg")  # timm's names for mean pooling


class Spatial(nn.Module, ABC):
    """A tower in two parts: pixels to a map, and a head that turns a cell, or a mean of cells, into features.

    The tower is never changed. ``stride`` is in image pixels per cell; ``own_grid`` are the cells at its own size.
    """

    def __init__(self, tower: Any, stride: Sequence[int], own_grid: Sequence[int] | None = None) -> None:
        super().__init__()
        self.tower = tower
        size = tower.image_size
        self.own_size: Size = (size, size) if isinstance(size, int) else (size[0], size[1])
        self.stride: Size = (stride[0], stride[1])
        height, width = own_grid or (self.own_size[0] // stride[0], self.own_size[1] // stride[1])
        self.own_grid: Size = (height, width)

    @abstractmethod
    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return the tower's features ``[N, D]`` of images ``[N, 3, H, W]``, and the map ``[N, C, h, w]``."""

    @abstractmethod
    def head(self, cells: Tensor) -> Tensor:
        """Return features ``[M, D]`` from means of cells ``[M, C]``."""

    def positions(self, grid: Size) -> dict[str, Tensor]:
        """Return replacements for the tower's tensors, by name, for a map of ``grid`` cells; by default none."""
        return {}

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
        """Return the features ``[N, 1 + R, D]`` of whole images and of their regions.

        The sides of images ``[N, 3, H, W]`` are multiples of ``stride`` or the tower's own. The boxes
        ``[N, 1 + R, 4]`` are relative; the first of each image is the whole image.
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


class _Transformer(Spatial):
    """open_clip's VisionTransformer: the patches after the last block, then ``ln_post`` and ``proj`` as its token."""

    def __init__(self, tower: Any) -> None:
        super().__init__(tower, tower.patch_size, tower.grid_size)
        if tower.attn_pool is not None and tower.attn_pool_contrastive is not None:
            raise UmieError("it pools by two attentions")
        if tower.pool_type not in ("tok", "avg"):
            raise UmieError(f"its pooling is {tower.pool_type!r}")
        # a tower that normalizes patches before averaging them needs cells normalized before they are averaged
        self._normalizes_cells = tower.attn_pool is None and tower.pool_type == "avg" and not tower.final_ln_after_pool

    def positions(self, grid: Size) -> dict[str, Tensor]:
        own = self.tower.positional_embedding
        return {"positional_embedding": resized(own, self.own_grid, grid)}

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        found = self.tower.forward_intermediates(images, indices=1, output_fmt="NCHW")
        (maps,) = found["image_intermediates"]
        if self._normalizes_cells:
            maps = self.tower.ln_post(maps.movedim(1, -1)).movedim(-1, 1)
        return found["image_features"], maps

    def head(self, cells: Tensor) -> Tensor:
        tower = self.tower
        if tower.attn_pool is not None:
            # over a single cell, attention is its value and output projections for any query, so one query is enough
            one = {"query": tower.attn_pool.query[:1]}
            cells = functional_call(tower.attn_pool, one, (cells[:, None],))[:, 0]
        if not self._normalizes_cells:
            cells = tower.ln_post(cells)
        return cells if tower.proj is None else cells @ tower.proj


class _ResNet(Spatial):
    """open_clip's ModifiedResNet: the last map, then the value and output projections of its attention pool.

    Source: MaskCLIP (Zhou et al. 2022). Deviation: a cell keeps the position that the attention pool adds to it,
    because the projections were trained on cells with positions.
    """

    def __init__(self, tower: Any) -> None:
        super().__init__(tower, (32, 32))

    def positions(self, grid: Size) -> dict[str, Tensor]:
        own = self.tower.attnpool.positional_embedding
        return {"attnpool.positional_embedding": resized(own, self.own_grid, grid)}

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        found = self.tower.forward_intermediates(images, indices=1)
        (maps,) = found["image_intermediates"]
        places = self.tower.attnpool.positional_embedding[1:].T.view(-1, *maps.shape[2:])
        return found["image_features"], maps + places.to(maps.dtype)

    def head(self, cells: Tensor) -> Tensor:
        features: Tensor = self.tower.attnpool.c_proj(self.tower.attnpool.v_proj(cells))
        return features


class _TimmTransformer(Spatial):
    """A transformer of timm: the patches after the last block, then its head applied to single patches."""

    def __init__(self, tower: Any) -> None:
        trunk, patches = tower.trunk, tower.trunk.patch_embed
        rope = getattr(trunk, "rope", None)
        if trunk.global_pool not in ("token", "map", *AVERAGE):
            raise UmieError(f"its pooling is {trunk.global_pool!r}")
        if rope is not None and not (hasattr(rope, "update_feat_shape") and "pos_embed" in rope._buffers):
            raise UmieError(f"its positions are of type {type(rope).__name__}")
        super().__init__(tower, patches.feat_ratio(as_scalar=False), patches.grid_size)

    def positions(self, grid: Size) -> dict[str, Tensor]:
        trunk = self.tower.trunk
        changed: dict[str, Tensor] = {}
        if trunk.dynamic_img_size:
            return changed  # timm resizes them itself
        if trunk.pos_embed is not None:
            changed["trunk.pos_embed"] = resized(trunk.pos_embed[0], self.own_grid, grid)[None]
        if getattr(trunk, "rope", None) is not None:
            rope = copy.copy(trunk.rope)  # with copied buffers, so that the original does not change
            rope._buffers = {name: None if own is None else own.clone() for name, own in rope._buffers.items()}
            rope.update_feat_shape(list(grid))
            changed["trunk.rope.pos_embed"] = rope.pos_embed
        return changed

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        trunk = copy.copy(self.tower.trunk)
        patches = copy.copy(trunk.patch_embed)
        patches.img_size = None  # otherwise it refuses every size except the tower's own
        trunk._modules = {**trunk._modules, "patch_embed": patches}
        final, (maps,) = trunk.forward_intermediates(images, indices=1, output_fmt="NCHW")
        if trunk.global_pool != "token":  # these towers normalize patches before pooling, if at all
            maps = trunk.norm(maps.movedim(1, -1)).movedim(-1, 1)
        return self.tower.head(trunk.forward_head(final)), maps

    def head(self, cells: Tensor) -> Tensor:
        trunk = self.tower.trunk
        if trunk.global_pool == "token":
            cells = trunk.norm(cells)
        # the head may use any of the tokens; over equal tokens, attention is its value and output projections
        tokens = cells[:, None].expand(-1, trunk.num_prefix_tokens + 1, -1)
        features: Tensor = self.tower.head(trunk.forward_head(tokens))
        return features


class _TimmConvolutions(Spatial):
    """A convolutional network of timm with mean pooling: its map, then its head applied to single cells."""

    def __init__(self, tower: Any) -> None:
        trunk = tower.trunk
        pool = getattr(getattr(trunk, "head", None), "global_pool", None) or getattr(trunk, "global_pool", None)
        if getattr(pool, "pool_type", None) not in AVERAGE or hasattr(tower.head, "pool"):
            raise UmieError("it does not pool its map by the mean")
        reduction = trunk.feature_info[-1]["reduction"]
        super().__init__(tower, (reduction, reduction))

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        maps = self.tower.trunk.forward_features(images)
        return self.tower.head(self.tower.trunk.forward_head(maps)), maps

    def head(self, cells: Tensor) -> Tensor:
        features: Tensor = self.tower.head(self.tower.trunk.forward_head(cells[:, :, None, None]))
        return features


def spatial(tower: nn.Module) -> Spatial:
    """Return a tower split into a map and a head; raise UmieError if its map cannot be pooled under boxes."""
    kind = type(tower).__name__
    if kind == "TimmModel":
        from timm.models import Eva, VisionTransformer  # already imported by open_clip

        transformer = isinstance(tower.trunk, VisionTransformer | Eva)
        return _TimmTransformer(tower) if transformer else _TimmConvolutions(tower)
    if kind == "VisionTransformer":
        return _Transformer(tower)
    if kind == "ModifiedResNet":
        return _ResNet(tower)
    raise UmieError(f"it is a {kind}")


@functools.cache  # building the tower, even without weights, takes tenths of a second
def geometry(model: str) -> tuple[Size, Size]:
    """Return a model's own size and its stride, both as height and width in pixels, without allocating weights."""
    try:
        parts = spatial(build_tower(model, None, device="meta"))
        height, width = 3 * parts.stride[0], 2 * parts.stride[1]
        _, maps = parts.whole_and_map(torch.empty(1, 3, height, width, device="meta"))
        if maps.shape[2:] != (3, 2):
            raise UmieError(f"{height} x {width} pixels give {' x '.join(map(str, maps.shape[2:]))} cells")
    except Exception as error:  # a tower that accepts only its own size can fail in any way
        reason = error if isinstance(error, UmieError) else first_line(error)
        raise UmieError(f"{model}: regions cannot be pooled from its map: {reason}; use mode='crop'") from error
    return parts.own_size, parts.stride
