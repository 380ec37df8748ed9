"""transformers' T5 cross-attention layer, optionally with the feed-forward layer that follows it in a decoder block."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from umie.bench.reference_layers import EPS, Equation, Parameters, gated_feed_forward, multi_head_attention, rms_norm
from umie.bench.shapes import Shape


class _T5CrossAttention(nn.Module):
    """The layer as T5's decoder calls it.

    The decoder prepares the mask, and zeros in place of a position bias, once for all its layers. Here they are
    prepared in the first call with a mask and reused while the mask stays the same. An example without an image
    attends to its padding: with every slot masked, the gradients of torch's sdpa would be wrong, because T5 masks with
    the smallest number instead of -inf.
    """

    def __init__(self, config: Any, *, feed_forward: bool) -> None:
        from transformers.models.t5 import modeling_t5

        super().__init__()
        self.config = config
        self.cross_attention = modeling_t5.T5LayerCrossAttention(config, layer_idx=0)
        self.feed_forward = modeling_t5.T5LayerFF(config) if feed_forward else None
        self._known: tuple[Tensor, torch.Size, torch.dtype] | None = None
        self._mask: Tensor | None = None
        self._bias: Tensor | None = None

    def forward(self, text: Tensor, text_mask: Tensor, visual: Tensor, visual_mask: Tensor) -> Tensor:
        if self._known is None or self._known[0] is not visual_mask or self._known[1:] != (text.shape, text.dtype):
            from transformers.masking_utils import create_bidirectional_mask

            self._mask = create_bidirectional_mask(
                config=self.config,
                inputs_embeds=text,
                attention_mask=_never_empty(visual_mask),
                encoder_hidden_states=visual,
            )
            self._bias = text.new_zeros(1, self.config.num_heads, text.shape[1], visual.shape[1])
            self._known = visual_mask, text.shape, text.dtype
        states: Tensor
        states, _, _ = self.cross_attention(
            text, key_value_states=visual, attention_mask=self._mask, position_bias=self._bias
        )
        if self.feed_forward is not None:
            states = self.feed_forward(states)
        return states


def build(shape: Shape, weights: Mapping[str, Tensor], *, implementation: str, feed_forward: bool = False) -> nn.Module:
    """Return the layer with our weights; ``implementation`` is transformers' name, ``eager`` or ``sdpa``."""
    from transformers import T5Config

    d_model, num_heads, head_dim, d_ff = shape.widths.values()
    config = T5Config(
        d_model=d_model,
        d_kv=head_dim,
        num_heads=num_heads,
        d_ff=d_ff,
        feed_forward_proj="gated-gelu",
        dropout_rate=0.0,
        layer_norm_epsilon=EPS,
        is_decoder=True,
    )
    config._attn_implementation = implementation  # normally set by a model; a single layer would warn about None
    layer = _T5CrossAttention(config, feed_forward=feed_forward)
    names = {
        "cross_attention.EncDecAttention.q": "attention.query",
        "cross_attention.EncDecAttention.k": "attention.key",
        "cross_attention.EncDecAttention.v": "attention.value",
        "cross_attention.EncDecAttention.o": "attention.output",
        "cross_attention.layer_norm": "norm",
    }
    if feed_forward:
        names |= {
            "feed_forward.DenseReluDense.wi_0": "feed_forward.gate",
            "feed_forward.DenseReluDense.wi_1": "feed_forward.up",
            "feed_forward.DenseReluDense.wo": "feed_forward.down",
            "feed_forward.layer_norm": "feed_forward_norm",
        }
    layer.load_state_dict({f"{theirs}.weight": weights[f"{ours}.weight"] for theirs, ours in names.items()})
    return layer


def build_reference(
    shape: Shape, weights: Mapping[str, Tensor], *, implementation: str, feed_forward: bool = False
) -> nn.Module:
    """Return the layer's equation, ``R = H + MHA(LN(H) -> V)`` or ``R + FFN(LN(R))``; arguments as in ``build``."""

    def equation(
        parameters: Parameters, text: Tensor, text_mask: Tensor, visual: Tensor, visual_mask: Tensor
    ) -> Tensor:
        projections = [parameters[f"cross_attention.EncDecAttention.{name}.weight"] for name in "qkvo"]
        normed = rms_norm(text, parameters["cross_attention.layer_norm.weight"], EPS)
        mask, num_heads = _never_empty(visual_mask), shape.widths["num_heads"]
        out = text + multi_head_attention(normed, visual, projections, num_heads=num_heads, scale=1.0, mask=mask)
        if not feed_forward:
            return out
        inner = [parameters[f"feed_forward.DenseReluDense.{name}.weight"] for name in ("wi_0", "wi_1", "wo")]
        return out + gated_feed_forward(rms_norm(out, parameters["feed_forward.layer_norm.weight"], EPS), *inner)

    return Equation(build(shape, weights, implementation=implementation, feed_forward=feed_forward), equation)


def _never_empty(mask: Tensor) -> Tensor:
    """Return ``mask [B, V]``, with rows that are all False set to True."""
    return mask | ~mask.any(1, keepdim=True)
