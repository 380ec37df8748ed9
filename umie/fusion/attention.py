"""Masked multi-head attention over visual slots: one function, and the layer with its projections.

Shapes: B batch, T queries, V slots, D model width, H heads, d head width.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from umie.errors import UmieError


def attention(q: Tensor, k: Tensor, v: Tensor, *, key_mask: Tensor, scale: float) -> Tensor:
    """Return scaled dot-product attention; an example whose keys are all masked gives zeros.

    Args:
        q: ``[B, T, H, d]``.
        k: ``[B, V, H, d]``.
        v: ``[B, V, H, d]``.
        key_mask: bool ``[B, V]``, True = real.
        scale: factor on the logits.

    Returns:
        ``[B, T, H, d]``.
    """
    has_keys = key_mask.any(dim=1)
    # A row without any key would be NaN: let it attend everywhere, and put zeros in its place afterwards.
    mask = (key_mask | ~has_keys[:, None])[:, None, None, :]
    out = F.scaled_dot_product_attention(
        q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2), attn_mask=mask, scale=scale
    )
    return out.transpose(1, 2).masked_fill(~has_keys[:, None, None, None], 0)


def attention_weights(q: Tensor, k: Tensor, *, key_mask: Tensor, scale: float) -> Tensor:
    """Return the weights ``[B, H, T, V]`` that ``attention`` sums the values with, computed plainly."""
    logits = torch.einsum("bthd,bvhd->bhtv", q, k) * scale
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    logits = logits.masked_fill(~key_mask[:, None, None, :], torch.finfo(logits.dtype).min)
    return (logits.softmax(dim=-1) * key_mask[:, None, None, :]).to(q.dtype)


class MultiHeadAttention(nn.Module):
    """Attention with projections and no bias, as in T5; H * d need not equal D.

    Args:
        d_model: width D of queries, keys and output.
        num_heads: H.
        head_dim: d; None takes D / H.
        scaled: divide the logits by sqrt(d); T5 does not.
    """

    def __init__(self, d_model: int, num_heads: int, head_dim: int | None, *, scaled: bool) -> None:
        super().__init__()
        head_dim = head_width(d_model, num_heads, head_dim)
        inner = num_heads * head_dim
        self.num_heads = num_heads
        self.scale = head_dim**-0.5 if scaled else 1.0
        self.query = nn.Linear(d_model, inner, bias=False)
        self.key = nn.Linear(d_model, inner, bias=False)
        self.value = nn.Linear(d_model, inner, bias=False)
        self.output = nn.Linear(inner, d_model, bias=False)
        self.reset_parameters(head_dim)

    def reset_parameters(self, head_dim: int) -> None:
        """Draw initial weights so that logits start with unit variance, with and without scaling."""
        d_model = self.query.in_features
        nn.init.normal_(self.query.weight, std=d_model**-0.5 * head_dim**-0.5 / self.scale)
        nn.init.normal_(self.key.weight, std=d_model**-0.5)
        nn.init.normal_(self.value.weight, std=d_model**-0.5)
        nn.init.normal_(self.output.weight, std=self.output.in_features**-0.5)

    def forward(
        self, queries: Tensor, keys: Tensor, key_mask: Tensor, *, output_attention: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        """Attend from ``queries [B, T, D]`` over ``keys [B, V, D]`` (which give the values as well).

        Returns:
            ``[B, T, D]``, zeros where an example has no key, and the weights ``[B, H, T, V]`` if asked for.
        """
        q, k, v = (
            rearrange(projected, "b n (h d) -> b n h d", h=self.num_heads)
            for projected in (self.query(queries), self.key(keys), self.value(keys))
        )
        weights = attention_weights(q, k, key_mask=key_mask, scale=self.scale) if output_attention else None
        mixed = attention(q, k, v, key_mask=key_mask, scale=self.scale)
        return self.output(rearrange(mixed, "b n h d -> b n (h d)")), weights


class RMSNorm(nn.RMSNorm):
    """Root-mean-square norm in the precision of its weights, which under autocast is not that of its input."""

    def __init__(self, d_model: int) -> None:
        super().__init__(d_model, eps=1e-6)

    def forward(self, x: Tensor) -> Tensor:
        """Normalise the last dimension."""
        return super().forward(x.to(self.weight.dtype)).to(x.dtype)


class GatedFeedForward(nn.Module):
    """The feed-forward layer of T5 v1.1: ``Wo (gelu_tanh(W0 x) * W1 x)``, without biases."""

    def __init__(self, d_model: int, d_ff: int) -> None:
        super().__init__()
        self.gate = nn.Linear(d_model, d_ff, bias=False)
        self.up = nn.Linear(d_model, d_ff, bias=False)
        self.down = nn.Linear(d_ff, d_model, bias=False)
        for layer in (self.gate, self.up, self.down):
            nn.init.normal_(layer.weight, std=layer.in_features**-0.5)

    def forward(self, states: Tensor) -> Tensor:
        """Map ``[..., D]`` to ``[..., D]``."""
        result: Tensor = self.down(F.gelu(self.gate(states), approximate="tanh") * self.up(states))
        return result


def head_width(d_model: int, num_heads: int, head_dim: int | None) -> int:
    """Return ``head_dim``, or D / H where it is None.

    Raises:
        UmieError: ``head_dim`` is None and H does not divide D (flan-t5-small: 6 heads of 64 on 512).
    """
    if head_dim is not None:
        return head_dim
    if d_model % num_heads:
        raise UmieError(f"num_heads={num_heads} does not divide d_model={d_model}: give head_dim")
    return d_model // num_heads
