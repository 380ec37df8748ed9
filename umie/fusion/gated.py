"""`gated`: UMIE's gated attention, where one number per example scales the attention from text to image."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from umie.errors import UmieError
from umie.fusion import registry
from umie.fusion.base import Fusion
from umie.fusion.gate import GatedFusionConfig, gate_projection, masked_mean, open_gate
from umie.fusion.kernels.base import add_gated
from umie.fusion.kernels.cpu.slices import in_slices
from umie.fusion.layers import GatedFeedForward, RMSNorm
from umie.types import FusedStates

__all__ = ["GatedFusion", "GatedFusionConfig", "fixed_gate", "largest_gate"]

TAU = math.exp(0.5)
SLOPE = 0.01


@registry.register("gated")
class GatedFusion(Fusion):
    """Attention from text to visual slots, added through a gate. Source: UMIE, eq. 6 to 8.

    ``A = MHA(LN(H) -> V)``; ``g = LeakyReLU(tau * cos(Wt mean(H), Wv mean(V)))`` with tau = e^0.5;
    ``H' = H + g * A``. Means are over real tokens and slots; without an image g is 0, also when it is fixed.
    """

    Config = GatedFusionConfig

    @classmethod
    def training_multipliers(cls, options: Mapping[str, Any]) -> dict[str, float]:
        """Return a low learning rate for the gate, which would close otherwise; see docs/gate.md."""
        return {"fusion.gate_": 0.003} if options.get("gate", "dynamic") == "dynamic" else {}

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
        self.fixed_gate = None if config.gate == "dynamic" else float(config.gate)
        if self.fixed_gate is None:
            self.gate_text, self.gate_visual = gate_projection(d_model), gate_projection(d_model)

    def forward(
        self, text: Tensor, text_mask: Tensor, visual: Tensor, visual_mask: Tensor, *, output_attention: bool = False
    ) -> FusedStates:
        """Fuse a batch, as described in ``Fusion.forward``; ``.gate`` is ``[B]``."""
        gate = self.gate_value(text, text_mask, visual, visual_mask)
        weights = self.attention.weights(self.norm(text), visual, visual_mask) if output_attention else None
        states = in_slices(self._add, text, text_mask, visual, visual_mask, gate, whole=self.training)
        return FusedStates(states, text_mask, gate=gate, attention=weights)

    def _add(self, text: Tensor, text_mask: Tensor, visual: Tensor, visual_mask: Tensor, gate: Tensor) -> Tensor:
        """Return ``H + g * A``, or as released ``H + g * F`` with ``R = H + A`` and ``F = R + FFN(LN(R))``."""
        inner_gate = None if self.released else gate
        attended: Tensor = self.attention(
            text, visual, visual_mask, query_mask=text_mask, norm=self.norm, gate=inner_gate, residual=text
        )
        if not self.released:
            return attended
        fed = self.feed_forward(self.feed_forward_norm(attended), attended, reuse_residual=True)
        return add_gated(text, gate, self.dropout(fed), reuse_states=not self.training)

    def gate_value(self, text: Tensor, text_mask: Tensor, visual: Tensor, visual_mask: Tensor) -> Tensor:
        """Return the gate ``[B]``; 0 for an example without an image."""
        has_image = visual_mask.any(dim=1)
        if self.fixed_gate is not None:
            return has_image.to(text.dtype) * self.fixed_gate
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
        """Open the gate: set Wt and Wv for a mean cosine of ``cosine`` on this batch.

        Returns:
            ``gate_cosine``, the mean cosine afterwards; empty for a fixed gate, or if no example has an image.
        """
        text, text_mask, visual, visual_mask = self.without_padding(text, text_mask, visual, visual_mask)
        seen = visual_mask.any(dim=1)
        if self.config.gate != "dynamic" or not seen.any():
            return {}
        text_mean, visual_mean = masked_mean(text, text_mask)[seen], masked_mean(visual, visual_mask)[seen]
        return {"gate_cosine": open_gate([(self.gate_text, text_mean), (self.gate_visual, visual_mean)], cosine)}


@contextmanager
def fixed_gate(model: nn.Module, gate: float) -> Iterator[None]:
    """Fix the gate of a model inside the block, to see what its answers owe to the media.

        with fixed_gate(extractor.model, 0.0):
            found = extractor.extract("Kids at the Salvation Army", "kids.jpg")

    The weights stay as they are, and a record without media keeps the gate 0. Every thread sees the gate: threads that
    share a model need a lock around the block and around their other calls.

    Args:
        model: a model with the fusion ``gated``, or the fusion itself.
        gate: the gate of every record with media.

    Raises:
        UmieError: the model has no gate, or the gate is not a finite number.
    """
    if isinstance(gate, bool) or not isinstance(gate, int | float) or not math.isfinite(gate):
        raise UmieError(f"gate is {gate!r}: use a number such as 0.05")
    gated = _gated(model)
    if not gated:
        raise UmieError("the gate cannot be fixed: the model has none; use one with the fusion gated")
    before = [fusion.fixed_gate for fusion in gated]
    try:
        for fusion in gated:
            fusion.fixed_gate = float(gate)
        yield
    finally:
        for fusion, own in zip(gated, before, strict=True):
            fusion.fixed_gate = own


def largest_gate(model: nn.Module) -> float | None:
    """Return the largest gate that a model can compute or has as a fixed one, at least tau; None without a gate."""
    gates = [fusion.fixed_gate or TAU for fusion in _gated(model)]
    return max(TAU, *gates) if gates else None


def _gated(model: nn.Module) -> list[GatedFusion]:
    return [part for part in model.modules() if isinstance(part, GatedFusion)]
