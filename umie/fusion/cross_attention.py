"""`cross_attention`: the text attends over the visual slots, and the result is added without a gate."""

from __future__ import annotations

from torch import Tensor

from umie.fusion import registry
from umie.fusion.base import AttentionFusionConfig, Fusion
from umie.fusion.kernels.cpu.slices import in_slices
from umie.fusion.layers import RMSNorm
from umie.types import FusedStates


@registry.register("cross_attention")
class CrossAttentionFusion(Fusion):
    """``H' = H + MHA(LN(H) -> V)``: UMIE's gated fusion with the gate fixed at 1."""

    Config = AttentionFusionConfig

    def __init__(self, config: AttentionFusionConfig) -> None:
        super().__init__(config)
        self.norm = RMSNorm(config.d_model)
        self.attention = config.attention(scaled=True, output_dropout=config.dropout)

    def forward(
        self, text: Tensor, text_mask: Tensor, visual: Tensor, visual_mask: Tensor, *, output_attention: bool = False
    ) -> FusedStates:
        """Fuse a batch, as described in ``Fusion.forward``."""
        weights = self.attention.weights(self.norm(text), visual, visual_mask) if output_attention else None
        states = in_slices(self._add, text, text_mask, visual, visual_mask, whole=self.training)
        return FusedStates(states, text_mask, attention=weights)

    def _add(self, text: Tensor, text_mask: Tensor, visual: Tensor, visual_mask: Tensor) -> Tensor:
        out: Tensor = self.attention(text, visual, visual_mask, query_mask=text_mask, norm=self.norm, residual=text)
        return out
