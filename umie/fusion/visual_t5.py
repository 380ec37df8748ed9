"""The released code's layers over visual slots: encoder blocks of T5, with a bias by the distance between slots."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn


class T5Layers(nn.Module):
    """Encoder blocks as transformers has them, without the norm behind the last, over states in place of tokens.

    Source: UMIE's released code, whose visual slots pass a T5 encoder of two blocks; the first one's position bias,
    learned for each head and bucket of distances, holds for all.

    Args:
        d_model: width D of the states.
        num_heads: attention heads.
        head_dim: width of a head.
        d_ff: inner width of the gated feed-forward layers.
        num_layers: blocks.
        num_buckets: distances that are told apart.
        max_distance: from which on all distances are alike.
        dropout: on states, attention weights and the output of every sublayer.
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
        self.stack.final_layer_norm = nn.Identity()  # the visual embedding has it, as behind any layers

    def forward(self, states: Tensor, mask: Tensor) -> Tensor:
        """Map ``states [B, V, D]``; what the slots give that are False in ``mask [B, V]`` is to be left alone."""
        # A row without any slot looks at its padding: a softmax over nothing would not be finite in half precision.
        keys = mask | ~mask.any(dim=1, keepdim=True)
        mapped: Tensor = self.stack(inputs_embeds=states, attention_mask=keys).last_hidden_state
        return mapped
