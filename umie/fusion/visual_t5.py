"""The released code's layers over visual slots: T5 encoder blocks with a bias on the distance between slots."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn


class T5Layers(nn.Module):
    """Encoder blocks of transformers' T5 without the final norm; they take states instead of tokens.

    Source: UMIE's released code, which passes the visual slots through a T5 encoder of two blocks. The position bias,
    learned per head and bucket of distances in the first block, applies to all blocks.

    Args:
        d_model: width D of the states.
        num_heads: attention heads.
        head_dim: width of a head.
        d_ff: inner width of the gated feed-forward layers.
        num_layers: number of blocks.
        num_buckets: number of relative positions that are distinguished.
        max_distance: distance from which all slots are treated alike.
        dropout: dropout probability on states, attention weights and the output of every sublayer.
    """

    def __init__(
        self,
        d_model: int,
        *,
        num_heads: int,
        head_dim: int,
        d_ff: int,
        num_layers: int,
        num_buckets: int = 32,
        max_distance: int = 128,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        from transformers import T5Config
        from transformers.models.t5.modeling_t5 import T5Stack

        config = T5Config(
            vocab_size=1,
            d_model=d_model,
            d_kv=head_dim,
            d_ff=d_ff,
            num_layers=num_layers,
            num_heads=num_heads,
            relative_attention_num_buckets=num_buckets,
            relative_attention_max_distance=max_distance,
            dropout_rate=dropout,
            feed_forward_proj="gated-gelu",
            use_cache=False,
            is_encoder_decoder=False,
            pad_token_id=None,
            eos_token_id=None,
        )
        self.stack: Any = T5Stack(config)
        self.stack.embed_tokens = None  # there are no tokens
        self.stack.final_layer_norm = nn.Identity()  # the visual embedding has its own

    def forward(self, states: Tensor, mask: Tensor) -> Tensor:
        """Map ``states [B, V, D]``; ignore the results where ``mask [B, V]`` is False."""
        # A row without slots attends to its padding: a fully masked softmax is not finite in half precision.
        keys = mask | ~mask.any(dim=1, keepdim=True)
        mapped: Tensor = self.stack(inputs_embeds=states, attention_mask=keys).last_hidden_state
        return mapped
