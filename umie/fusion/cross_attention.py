"""`cross_attention`: the text attends over the visual slots, and what it finds is added without a gate."""

from __future__ import annotations

from torch import Tensor, nn

from umie.fusion import registry
from umie.fusion.attention import MultiHeadAttention, RMSNorm
from umie.fusion.base import Fusion, FusionConfig
from umie.types import FusedStates


@registry.register("cross_attention")
class CrossAttentionFusion(Fusion):
    """``H' = H + MHA(LN(H) -> V)``: the gated fusion of UMIE with its gate held at 1."""

    def __init__(self, config: FusionConfig) -> None:
        super().__init__(config)
        self.norm = RMSNorm(config.d_model)
        self.attention = MultiHeadAttention(config.d_model, config.num_heads, config.head_dim, scaled=True)
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
        """Add what the text finds in the picture."""
        found, weights = self.attention(self.norm(text), visual, visual_mask, output_attention=output_attention)
        return FusedStates(text + self.dropout(found), text_mask, attention=weights)
