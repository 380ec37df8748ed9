"""The kinds of image towers that open_clip builds, each split into a map and a head."""

from __future__ import annotations

import copy
import functools
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from umie.encoders.clip.models import build_tower
from umie.encoders.clip.spatial import Size, Spatial, resized
from umie.errors import UmieError
from umie.weights import first_line

AVERAGE = ("avg", "fast", "fastavg")  # timm's names for mean pooling


class _Transformer(Spatial):
    """open_clip's VisionTransformer: the patches after the last block, then ``ln_post`` and ``proj`` as its token."""

    def __init__(self, tower: Any) -> None:
        super().__init__(tower)
        if tower.attn_pool is not None and tower.attn_pool_contrastive is not None:
            raise UmieError("it pools by two attentions")
        if tower.pool_type not in ("tok", "avg"):
            raise UmieError(f"its pooling is {tower.pool_type!r}")
        # a tower that normalizes patches before averaging them needs cells normalized before they are averaged
        self._normalizes_cells = tower.attn_pool is None and tower.pool_type == "avg" and not tower.final_ln_after_pool

    @property
    def stride(self) -> Size:
        height, width = self.tower.patch_size
        return height, width

    @property
    def own_grid(self) -> Size:
        height, width = self.tower.grid_size
        return height, width

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

    stride = (32, 32)

    @property
    def own_grid(self) -> Size:
        side = self.own_size[0] // self.stride[0]
        return side, side

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
        super().__init__(tower)
        trunk = tower.trunk
        rope = getattr(trunk, "rope", None)
        if trunk.global_pool not in ("token", "map", *AVERAGE):
            raise UmieError(f"its pooling is {trunk.global_pool!r}")
        if rope is not None and not (hasattr(rope, "update_feat_shape") and "pos_embed" in rope._buffers):
            raise UmieError(f"its positions are of type {type(rope).__name__}")

    @property
    def stride(self) -> Size:
        height, width = self.tower.trunk.patch_embed.feat_ratio(as_scalar=False)
        return height, width

    @property
    def own_grid(self) -> Size:
        height, width = self.tower.trunk.patch_embed.grid_size
        return height, width

    def positions(self, grid: Size) -> dict[str, Tensor]:
        trunk = self.tower.trunk
        changed: dict[str, Tensor] = {}
        if trunk.dynamic_img_size:
            return changed  # timm resizes them itself
        if trunk.pos_embed is not None:
            changed["trunk.pos_embed"] = resized(trunk.pos_embed[0], self.own_grid, grid)[None]
        if getattr(trunk, "rope", None) is not None:
            rope = _copied(trunk.rope)
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
        super().__init__(tower)
        trunk = tower.trunk
        pool = getattr(getattr(trunk, "head", None), "global_pool", None) or getattr(trunk, "global_pool", None)
        if getattr(pool, "pool_type", None) not in AVERAGE or hasattr(tower.head, "pool"):
            raise UmieError("it does not pool its map by the mean")

    @property
    def stride(self) -> Size:
        reduction = self.tower.trunk.feature_info[-1]["reduction"]
        return reduction, reduction

    @property
    def own_grid(self) -> Size:
        return self.own_size[0] // self.stride[0], self.own_size[1] // self.stride[1]

    def positions(self, grid: Size) -> dict[str, Tensor]:
        return {}

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        maps = self.tower.trunk.forward_features(images)
        return self.tower.head(self.tower.trunk.forward_head(maps)), maps

    def head(self, cells: Tensor) -> Tensor:
        features: Tensor = self.tower.head(self.tower.trunk.forward_head(cells[:, :, None, None]))
        return features


def spatial(tower: nn.Module) -> Spatial:
    """Return a tower split into a map and a head.

    Raises:
        UmieError: its map cannot be pooled under boxes; the caller adds the model's name to the message.
    """
    kind = type(tower).__name__
    if kind == "TimmModel":
        from timm.models import Eva, VisionTransformer  # already imported by open_clip

        transformer = isinstance(tower.trunk, VisionTransformer | Eva)
        return _TimmTransformer(tower) if transformer else _TimmConvolutions(tower)
    kinds: dict[str, type[Spatial]] = {"VisionTransformer": _Transformer, "ModifiedResNet": _ResNet}
    if kind not in kinds:
        raise UmieError(f"it is a {kind}")
    return kinds[kind](tower)


@functools.cache  # building the tower, even without weights, takes tenths of a second
def geometry(model: str) -> tuple[Size, Size]:
    """Return a model's own size and its stride, both as height and width in pixels, without allocating weights.

    Raises:
        UmieError: region features cannot be pooled from the model's map.
    """
    try:
        parts = spatial(build_tower(model, None, device="meta"))
        height, width = 3 * parts.stride[0], 2 * parts.stride[1]
        _, maps = parts.whole_and_map(torch.empty(1, 3, height, width, device="meta"))
        if maps.shape[2:] != (3, 2):
            raise UmieError(f"{height} x {width} pixels give {' x '.join(map(str, maps.shape[2:]))} cells")
    except UmieError as error:
        raise UmieError(f"{model}: regions cannot be pooled from its map: {error}; use mode='crop'") from error
    except Exception as error:  # a tower that accepts only its own size can fail in any way
        raise UmieError(
            f"{model}: regions cannot be pooled from its map: {first_line(error)}; use mode='crop'"
        ) from error
    return parts.own_size, parts.stride


def _copied(module: Any) -> Any:
    """Return a module with copied buffers, so that writing to them does not change the original."""
    copied = copy.copy(module)
    copied._buffers = {name: None if value is None else value.clone() for name, value in module._buffers.items()}
    return copied
