"""The visual embedding, shared by all fusions: maps features and boxes to visual states of the model's width."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from umie.errors import UmieError, check_choice, check_flag, check_whole
from umie.fusion.attention import MultiHeadAttention, head_width
from umie.fusion.base import WidthConfig
from umie.fusion.layers import GatedFeedForward, RMSNorm
from umie.types import NUM_STEPS, VisualFeatures

MAX_NUMBER = 1000  # of layers and of embeddings of slots and images


@dataclass(frozen=True, kw_only=True)
class VisualEmbeddingConfig(WidthConfig):
    """Options of the visual embedding.

    Args:
        feature_dim: width Dv of the encoder's features.
        num_layers: Transformer layers (the paper has 2).
        layers: ``plain`` layers see a slot's position only through its box; ``t5`` layers are the released code's: T5
            encoder blocks with a relative position bias over the slots and unscaled logits.
        num_position_buckets: number of relative positions that ``t5`` layers distinguish.
        max_position_distance: distance from which ``t5`` layers treat all slots alike.
        normalize: RMS-normalize the two projections before adding them (as the released code does).
        num_slot_embeddings: learn an embedding for each of the first slots of each medium, so that states identify the
            regions O1, O2, ... (only in the released code, not in the paper's equation); 0 for none.
        num_image_embeddings: learn an embedding for each of the first images of a record, so that states tell the
            slots of one from those of another; 0 for none.
        video_dim: width of the features of the video encoder; None without one.
        audio_dim: width of the features of the audio encoder; None without one.
    """

    feature_dim: int
    num_layers: int = 2
    layers: Literal["plain", "t5"] = "plain"
    num_position_buckets: int = 32
    max_position_distance: int = 128
    normalize: bool = False
    num_slot_embeddings: int = 0
    num_image_embeddings: int = 0
    video_dim: int | None = None
    audio_dim: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_whole("feature_dim", self.feature_dim, 1)
        for name in ("video_dim", "audio_dim"):
            if getattr(self, name) is not None:
                check_whole(name, getattr(self, name), 1)
        for name in ("num_layers", "num_slot_embeddings", "num_image_embeddings"):
            check_whole(name, getattr(self, name), 0)
            if getattr(self, name) > MAX_NUMBER:
                raise UmieError(f"{name} is {getattr(self, name)}: use at most {MAX_NUMBER:,}")
        check_choice("layers", self.layers, ("plain", "t5"))
        check_whole("num_position_buckets", self.num_position_buckets, 4)
        # T5's buckets divide by log(max_distance / (num_buckets / 4))
        check_whole("max_position_distance", self.max_position_distance, self.num_position_buckets // 4 + 1)
        check_flag("normalize", self.normalize)


class VisualEmbedding(nn.Module):
    """``FC(features) + FC([x1, y1, x2, y2, area])``, then Transformer layers over the real slots of all media.

    Source: UMIE, eq. 4 and 5, which has images only. Deviation: the layers are pre-norm T5 blocks without position
    bias, with a final RMSNorm. For the released code's form use ``layers="t5", normalize=True`` with slot embeddings.
    """

    def __init__(self, config: VisualEmbeddingConfig) -> None:
        super().__init__()
        self.config = config
        d_model = config.d_model
        norm = RMSNorm if config.normalize else nn.Identity
        self.feature_projection = nn.Linear(config.feature_dim, d_model)
        self.box_projection = nn.Linear(5, d_model)
        self.feature_norm = norm(d_model)
        self.box_norm = norm(d_model)
        self.slots = nn.Embedding(config.num_slot_embeddings, d_model) if config.num_slot_embeddings else None
        self.images = nn.Embedding(config.num_image_embeddings, d_model) if config.num_image_embeddings else None
        if self.images is not None:
            nn.init.zeros_(self.images.weight)
        dims = {"video": config.video_dim, "audio": config.audio_dim}
        self.media = nn.ModuleDict(
            {medium: _MediumProjection(config, dim, medium) for medium, dim in dims.items() if dim is not None}
        )
        plain = config.layers == "plain"
        self.layers = _Layers(_Layer(config) for _ in range(config.num_layers)) if plain else _T5Layers(config)
        self.norm = RMSNorm(d_model)

    def forward(self, visual: VisualFeatures | None, **media: VisualFeatures) -> Tensor:
        """Return visual states ``[B, V, D]``; padding slots are zero and change nothing.

        Args:
            visual: the features of images; None if no record of the batch has one.
            media: the features of ``video`` and ``audio``, as far as records have them. Their slots follow those of
                the images, in this order.
        """
        found = [] if visual is None else [(self._embedded(visual), visual.mask)]
        for medium, projection in self.media.items():
            if medium in media:
                found.append((projection(media[medium]), media[medium].mask))
        states, mask = (torch.cat(parts, dim=1) for parts in zip(*found, strict=True))
        embedded: Tensor = self.norm(self.layers(states, mask)).masked_fill(~mask[..., None], 0)
        return embedded

    def _embedded(self, visual: VisualFeatures) -> Tensor:
        """Return the states of the slots of images before the layers."""
        mask = visual.mask
        dtype = self.feature_projection.weight.dtype
        features = visual.features.to(dtype).masked_fill(~mask[..., None], 0)
        # bfloat16 has too few bits for areas
        boxes = visual.boxes.to(torch.promote_types(visual.boxes.dtype, torch.float32))
        boxes = boxes.masked_fill(~mask[..., None], 0)
        x1, y1, x2, y2 = boxes.unbind(-1)
        area = (x2 - x1) * (y2 - y1)
        states: Tensor = self.feature_norm(self.feature_projection(features))
        places = torch.cat([boxes, area[..., None]], dim=-1).to(dtype)
        states = states + self.box_norm(self.box_projection(places))
        if self.slots is not None:
            num_named = min(mask.shape[1], self.slots.num_embeddings)
            states[:, :num_named] = states[:, :num_named] + self.slots.weight[:num_named]
        if self.images is not None:
            numbers = mask.long() if visual.images is None else visual.images
            known = F.pad(self.images.weight, (0, 0, 1, 1))  # of no image, of the first ones, and of all others
            states = states + F.embedding(numbers.clamp(max=len(known) - 1), known)
        return states


class _MediumProjection(nn.Module):
    """``FC(features) + FC([x1, y1, x2, y2, area, start, end, length]) + FC(path) + e``, with e learned per medium."""

    def __init__(self, config: VisualEmbeddingConfig, feature_dim: int, medium: str) -> None:
        super().__init__()
        d_model = config.d_model
        norm = RMSNorm if config.normalize else nn.Identity
        self.feature_projection, self.feature_norm = nn.Linear(feature_dim, d_model), norm(d_model)
        self.place_projection, self.place_norm = nn.Linear(8, d_model), norm(d_model)
        self.path_projection = nn.Linear(4 * NUM_STEPS, d_model, bias=False) if medium == "video" else None
        self.medium = nn.Parameter(torch.zeros(d_model))
        self.slots = nn.Embedding(config.num_slot_embeddings, d_model) if config.num_slot_embeddings else None

    def forward(self, slots: VisualFeatures) -> Tensor:
        """Return ``[B, V, D]``, the states of the slots of one medium before the layers."""
        mask = slots.mask
        dtype = self.feature_projection.weight.dtype
        features = slots.features.to(dtype).masked_fill(~mask[..., None], 0)
        boxes = slots.boxes.float().masked_fill(~mask[..., None], 0)
        spans = boxes[..., :2] if slots.spans is None else slots.spans.float().masked_fill(~mask[..., None], 0)
        x1, y1, x2, y2 = boxes.unbind(-1)
        start, end = spans.unbind(-1)
        places = torch.stack([x1, y1, x2, y2, (x2 - x1) * (y2 - y1), start, end, end - start], dim=-1).to(dtype)
        placed = self.place_projection(places)
        if self.path_projection is not None and slots.paths is not None:
            paths = slots.paths.flatten(2).masked_fill(~mask[..., None], 0)
            placed = placed + self.path_projection(paths.to(dtype))
        states: Tensor = self.feature_norm(self.feature_projection(features)) + self.place_norm(placed) + self.medium
        if self.slots is not None:
            num_named = min(mask.shape[1], self.slots.num_embeddings)
            named = F.pad(self.slots.weight[:num_named], (0, 0, 0, mask.shape[1] - num_named))
            states = states + named
        return states


class _Layers(nn.ModuleList):
    """Layers in sequence."""

    def forward(self, states: Tensor, mask: Tensor) -> Tensor:
        for layer in self:
            states = layer(states, mask)
        return states


class _Layer(nn.Module):
    """One pre-norm Transformer layer."""

    def __init__(self, config: VisualEmbeddingConfig) -> None:
        super().__init__()
        d_model = config.d_model
        self.attention_norm = RMSNorm(d_model)
        self.attention = MultiHeadAttention(d_model, config.num_heads, config.head_dim, scaled=True)
        self.feed_forward_norm = RMSNorm(d_model)
        self.feed_forward = GatedFeedForward(d_model, config.d_ff or 2 * d_model)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, states: Tensor, mask: Tensor) -> Tensor:
        normed = self.attention_norm(states)
        states = states + self.dropout(self.attention(normed, normed, mask))
        fed: Tensor = states + self.dropout(self.feed_forward(self.feed_forward_norm(states)))
        return fed


class _T5Layers(nn.Module):
    """Encoder blocks of transformers' T5 without the final norm; they take states instead of tokens.

    Source: UMIE's released code, which passes the visual slots through a T5 encoder of two blocks. The position bias,
    learned per head and bucket of distances in the first block, applies to all blocks. The dropout probability applies
    to states, attention weights and the output of every sublayer.
    """

    def __init__(self, config: VisualEmbeddingConfig) -> None:
        super().__init__()
        from transformers import T5Config
        from transformers.models.t5.modeling_t5 import T5Stack

        t5 = T5Config(
            vocab_size=1,
            d_model=config.d_model,
            d_kv=head_width(config.d_model, config.num_heads, config.head_dim),
            d_ff=config.d_ff or 2 * config.d_model,
            num_layers=config.num_layers,
            num_heads=config.num_heads,
            relative_attention_num_buckets=config.num_position_buckets,
            relative_attention_max_distance=config.max_position_distance,
            dropout_rate=config.dropout,
            feed_forward_proj="gated-gelu",
            use_cache=False,
            is_encoder_decoder=False,
            pad_token_id=None,
            eos_token_id=None,
        )
        self.stack: Any = T5Stack(t5)
        self.stack.embed_tokens = None  # there are no tokens
        self.stack.final_layer_norm = nn.Identity()  # the visual embedding has its own

    def forward(self, states: Tensor, mask: Tensor) -> Tensor:
        # A row without slots attends to its padding: a fully masked softmax is not finite in half precision.
        keys = mask | ~mask.any(dim=1, keepdim=True)
        mapped: Tensor = self.stack(inputs_embeds=states, attention_mask=keys).last_hidden_state
        return mapped
