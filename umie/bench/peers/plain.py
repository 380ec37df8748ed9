"""The plain gated block: a direct implementation of UMIE's equations; autograd keeps every intermediate result.

Shapes: B batch, T text tokens, V visual slots, D model width, H heads, d head width.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from umie.bench.shapes import Shape
from umie.fusion.gate import GATE_HIDDEN, GATE_OUT


def build(shape: Shape, weights: Mapping[str, Tensor], *, block: str) -> nn.Module:
    """Return the block ``released`` or ``paper``, or the released ``gate``, with our weights."""
    released = block in ("released", "gate")
    module = _Gate(shape, released=released) if block == "gate" else _Block(shape, released=released)
    module.load_state_dict({name: weights[name] for name in module.state_dict()})
    return module


class _Gate(nn.Module):
    """The gate ``[B]``: every token and slot is projected, then the real ones are averaged."""

    def __init__(self, shape: Shape, *, released: bool) -> None:
        super().__init__()
        self.released = released
        self.gate_text, self.gate_visual = (
            nn.Sequential(
                nn.Linear(shape.widths["d_model"], GATE_HIDDEN, bias=False),
                nn.Linear(GATE_HIDDEN, GATE_OUT, bias=False),
            )
            for _ in range(2)
        )

    def forward(self, text: Tensor, text_mask: Tensor, visual: Tensor, visual_mask: Tensor) -> Tensor:
        means = _average(self.gate_text(text), text_mask), _average(self.gate_visual(visual), visual_mask)
        wide = torch.promote_types(text.dtype, torch.float32)  # in 16 bits the gradient of a cosine is mostly rounding
        cosine = F.cosine_similarity(means[0].to(wide), means[1].to(wide), dim=-1).to(text.dtype)
        gate = F.leaky_relu(math.exp(0.5) * cosine, 0.01)
        if self.released:
            gate = F.leaky_relu(gate, 0.01)
        return gate.masked_fill(~visual_mask.any(1), 0)  # the gradient of a cosine with 0 overflows float16


class _Block(_Gate):
    """``H + g * A``, or as released ``H + g * F`` with ``R = H + A`` and ``F = R + FFN(LN(R))``."""

    def __init__(self, shape: Shape, *, released: bool) -> None:
        super().__init__(shape, released=released)
        d_model, num_heads, head_dim, d_ff = shape.widths.values()
        self.norm = _Norm(d_model)
        self.attention = _Attention(d_model, num_heads, head_dim, 1.0 if released else head_dim**-0.5)
        if released:
            self.feed_forward_norm = _Norm(d_model)
            self.feed_forward = _FeedForward(d_model, d_ff)

    def forward(self, text: Tensor, text_mask: Tensor, visual: Tensor, visual_mask: Tensor) -> Tensor:
        found = self.attention(self.norm(text), visual, visual_mask)
        if self.released:
            found = text + found
            found = found + self.feed_forward(self.feed_forward_norm(found))
        out: Tensor = text + super().forward(text, text_mask, visual, visual_mask)[:, None, None] * found
        return out


class _Norm(nn.Module):
    """T5's root-mean-square norm."""

    def __init__(self, d_model: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(d_model))

    def forward(self, x: Tensor) -> Tensor:
        return self.weight * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6))


class _Attention(nn.Module):
    """T5's multi-head attention from ``[B, T, D]`` over ``[B, V, D]``; ``scale`` is the factor on the logits."""

    def __init__(self, d_model: int, num_heads: int, head_dim: int, scale: float) -> None:
        super().__init__()
        inner = num_heads * head_dim
        self.num_heads, self.head_dim, self.scale = num_heads, head_dim, scale
        self.query, self.key, self.value = (nn.Linear(d_model, inner, bias=False) for _ in range(3))
        self.output = nn.Linear(inner, d_model, bias=False)

    def forward(self, states: Tensor, slots: Tensor, slot_mask: Tensor) -> Tensor:
        q, k, v = (
            projected.view(*projected.shape[:2], self.num_heads, self.head_dim).transpose(1, 2)
            for projected in (self.query(states), self.key(slots), self.value(slots))
        )
        logits = torch.matmul(q, k.transpose(2, 3)) * self.scale
        logits = logits.masked_fill(~slot_mask[:, None, None, :], torch.finfo(logits.dtype).min)
        mixed = torch.matmul(F.softmax(logits, dim=-1), v)
        found: Tensor = self.output(mixed.transpose(1, 2).reshape(*states.shape[:2], -1))
        return found


class _FeedForward(nn.Module):
    """The gated feed-forward layer of T5 v1.1."""

    def __init__(self, d_model: int, d_ff: int) -> None:
        super().__init__()
        self.gate, self.up = nn.Linear(d_model, d_ff, bias=False), nn.Linear(d_model, d_ff, bias=False)
        self.down = nn.Linear(d_ff, d_model, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.down(F.gelu(self.gate(x), approximate="tanh") * self.up(x))
        return out


def _average(states: Tensor, mask: Tensor) -> Tensor:
    weights = mask[..., None].to(states.dtype)
    return (states * weights).sum(1) / weights.sum(1).clamp(min=1)
