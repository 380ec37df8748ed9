"""`gated`: UMIE's gated attention, where one number per example scales the attention from text to image."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from umie.errors import UmieError, check_choice, check_flag
from umie.fusion import registry
from umie.fusion.base import AttentionFusionConfig, Fusion
from umie.fusion.gate_initialization import open_gate
from umie.fusion.kernels.base import add_gated
from umie.fusion.kernels.cpu.slices import in_slices
from umie.fusion.layers import GatedFeedForward, RMSNorm
from umie.types import FusedStates

GATE_HIDDEN, GATE_OUT = 384, 128  # the released code's widths
TAU = math.exp(0.5)
SLOPE = 0.01


@dataclass(frozen=True, kw_only=True)
class GatedFusionConfig(AttentionFusionConfig):
    """Options of gated attention.

    Args:
        residual: ``paper`` adds ``g * A``; ``released`` adds ``g * F`` with ``R = H + A`` and
            ``F = R + FFN(LN(R))``, and applies the gate's LeakyReLU twice.
        gate: ``dynamic``, or a fixed number for every example with an image.
        detach_gate: stop the gate's gradient at the two means, so that it trains only the gate's own weights.
        scaled: divide the attention logits by sqrt(head_dim). None depends on ``residual``: true for ``paper``
            (eq. 6), false for ``released``.
    """

    residual: Literal["paper", "released"] = "paper"
    gate: Literal["dynamic"] | float = "dynamic"
    detach_gate: bool = False
    scaled: bool | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("residual", self.residual, ("paper", "released"))
        check_flag("detach_gate", self.detach_gate)
        if self.scaled not in (None, True, False):
            raise UmieError(f"scaled is {self.scaled!r}: use true or false, or omit it")
        is_number = isinstance(self.gate, int | float) and not isinstance(self.gate, bool)
        if self.gate != "dynamic" and not (is_number and math.isfinite(float(self.gate))):
            raise UmieError(f"gate is {self.gate!r}: use 'dynamic' or a number such as 0.05")


@registry.register("gated")
class GatedFusion(Fusion):
    """Attention from text to visual slots, added through a gate. Source: UMIE, eq. 6 to 8.

    ``A = MHA(LN(H) -> V)``; ``g = LeakyReLU(tau * cos(Wt mean(H), Wv mean(V)))`` with tau = e^0.5;
    ``H' = H + g * A``. Means are over real tokens and slots; without an image g is 0, also when it is fixed.
    """

    Config = GatedFusionConfig

    def __init__(self, config: GatedFusionConfig) -> None:
        super().__init__(config)
        self.config: GatedFusionConfig = config
        d_model, self.released = config.d_model, config.residual == "released"
        scaled = not self.released if config.scaled is None else config.scaled
        self.norm = RMSNorm(d_model)
        self.attention = config.attention(scaled=scaled, output_dropout=0.0 if self.released else config.dropout)
        if self.released:
            self.feed_forward_norm = RMSNorm(d_model)
            self.feed_forward = GatedFeedForward(d_model, config.d_ff or 2 * d_model)
            self.dropout = nn.Dropout(config.dropout)
        if config.gate == "dynamic":
            self.gate_text, self.gate_visual = _gate_projection(d_model), _gate_projection(d_model)

    def forward(
        self,
        text: Tensor,
        text_mask: Tensor,
        visual: Tensor,
        visual_mask: Tensor,
        *,
        output_attention: bool = False,
    ) -> FusedStates:
        """Fuse a batch, as described in ``Fusion.forward``; ``.gate`` is ``[B]``."""
        gate = self.gate_value(text, text_mask, visual, visual_mask)
        weights = self.attention.weights(self.norm(text), visual, visual_mask) if output_attention else None
        add = self._add_released if self.released else self._add_paper
        states = in_slices(add, text, text_mask, visual, visual_mask, gate, whole=self.training)
        return FusedStates(states, text_mask, gate=gate, attention=weights)

    def _add_paper(self, text: Tensor, text_mask: Tensor, visual: Tensor, visual_mask: Tensor, gate: Tensor) -> Tensor:
        """Return ``H + g * A``."""
        out: Tensor = self.attention(
            text, visual, visual_mask, query_mask=text_mask, norm=self.norm, gate=gate, residual=text
        )
        return out

    def _add_released(
        self, text: Tensor, text_mask: Tensor, visual: Tensor, visual_mask: Tensor, gate: Tensor
    ) -> Tensor:
        """Return ``H + g * F`` with ``R = H + A`` and ``F = R + FFN(LN(R))``."""
        attended = self.attention(text, visual, visual_mask, query_mask=text_mask, norm=self.norm, residual=text)
        fed = self.feed_forward(self.feed_forward_norm(attended), attended, reuse_residual=True)
        return add_gated(text, gate, self.dropout(fed), reuse_states=not self.training)

    def gate_value(self, text: Tensor, text_mask: Tensor, visual: Tensor, visual_mask: Tensor) -> Tensor:
        """Return the gate ``[B]``; 0 for an example without an image."""
        has_image = visual_mask.any(dim=1)
        if self.config.gate != "dynamic":
            return has_image.to(text.dtype) * float(self.config.gate)
        means = [masked_mean(text, text_mask), masked_mean(visual, visual_mask)]
        if self.config.detach_gate:
            means = [mean.detach() for mean in means]
        wide = torch.promote_types(text.dtype, torch.float32)  # float16 rounds cosine_similarity's eps, 1e-8, to 0
        sides = self.gate_text(means[0]).to(wide), self.gate_visual(means[1]).to(wide)
        gate = F.leaky_relu(TAU * F.cosine_similarity(*sides), SLOPE)
        if self.released:
            gate = F.leaky_relu(gate, SLOPE)
        return gate.masked_fill(~has_image, 0).to(text.dtype)

    def initialize(
        self, text: Tensor, text_mask: Tensor, visual: Tensor, visual_mask: Tensor, *, cosine: float = 0.75
    ) -> dict[str, float]:
        """Set Wt and Wv so that the gate starts open: a mean cosine of ``cosine`` on this batch.

        Returns:
            ``gate_cosine``: the mean cosine on the batch afterwards; empty for a fixed gate, or if no example has
            an image.
        """
        has_image = visual_mask.any(dim=1)
        if self.config.gate != "dynamic" or not has_image.any():
            return {}
        sides = [
            (self.gate_text, masked_mean(text, text_mask)[has_image]),
            (self.gate_visual, masked_mean(visual, visual_mask)[has_image]),
        ]
        return {"gate_cosine": open_gate(sides, cosine)}


def masked_mean(states: Tensor, mask: Tensor) -> Tensor:
    """Return the mean ``[B, D]`` of ``states [B, N, D]`` where ``mask [B, N]`` is True; 0 if it is nowhere True."""
    weights = mask.to(states.dtype)
    weights = weights / weights.sum(dim=1, keepdim=True).clamp(min=1)
    return torch.bmm(weights[:, None], states)[:, 0]  # makes no masked copy of the states


def _gate_projection(d_model: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(d_model, GATE_HIDDEN, bias=False), nn.Linear(GATE_HIDDEN, GATE_OUT, bias=False))
