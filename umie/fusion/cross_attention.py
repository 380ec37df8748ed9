"""`cross_attention`: the text attends over the visual slots, and what it finds is added without a gate."""

from __future__ import annotations

from torch import Tensor, nn

from umie.fusion import registry
from umie.fusion.base import AttentionFusionConfig, Fusion
from umie.fusion.norm import RMSNorm
from umie.fusion.slices import in_slices
from umie.types import FusedStates


@registry.register("cross_attention")
class CrossAttentionFusion(Fusion):
    """``H' = H + MHA(LN(H) -> V)``: the gated fusion of UMIE with its gate held at 1."""

    Config = AttentionFusionConfig

    def __init__(self, config: AttentionFusionConfig) -> None:
        super().__init__(config)
        self.norm = RMSNorm(config.d_model)
        self.attention = config.attention(scaled=True)
        self.dropout = nn.Dropout(config.dropout)

    def forward(
        self,
        text: Tensor,
        text_mask: Tensor,
        visual: Tensor,
        visual_mask: Tensor,
        *,
        output_attention: bool = False,
    ) -> FusedStates:
        """Add what the text finds in the image."""
        weights = self.attention.weights(self.norm(text), visual, visual_mask) if output_attention else None
        parts = text, text_mask, visual, visual_mask
        # In training dropout must not hang on slices, which are taken without gradients only (checkpointing).
        states = self._add(*parts) if self.training else in_slices(self._add, *parts)
        return FusedStates(states, text_mask, attention=weights)

    def _add(self, text: Tensor, text_mask: Tensor, visual: Tensor, visual_mask: Tensor) -> Tensor:
        drops = self.training and self.dropout.p > 0
        found: Tensor
        found, _ = self.attention(
            text, visual, visual_mask, query_mask=text_mask, residual=None if drops else text, norm=self.norm
        )
        return text + self.dropout(found) if drops else found
