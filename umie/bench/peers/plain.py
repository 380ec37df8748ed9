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
from umie.fusion.gated import GATE_HIDDEN, GATE_OUT


class PlainNorm(nn.Module):
    """T5's root-mean-square norm."""

    def __init__(self, d_model: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(d_model))

    def forward(self, x: Tensor) -> Tensor:
        """Normalize the last dimension."""
        return self.weight * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6))


class PlainAttention(nn.Module):
    """T5's multi-head attention, step by step; ``scale`` is the factor on the logits."""

    def __init__(self, d_model: int, num_heads: int, head_dim: int, scale: float) -> None:
        super().__init__()
        inner = num_heads * head_dim
        self.num_heads, self.head_dim, self.scale = num_heads, head_dim, scale
        self.query, self.key, self.value = (nn.Linear(d_model, inner, bias=False) for _ in range(3))
        self.output = nn.Linear(inner, d_model, bias=False)

    def forward(self, states: Tensor, slots: Tensor, slot_mask: Tensor) -> Tensor:
        """Attend from ``states [B, T, D]`` over ``slots [B, V, D]``."""
        q, k, v = self._split(self.query(states)), self._split(self.key(slots)), self._split(self.value(slots))
        logits = torch.matmul(q, k.transpose(2, 3)) * self.scale
        logits = logits.masked_fill(~slot_mask[:, None, None, :], torch.finfo(logits.dtype).min)
        mixed = torch.matmul(F.softmax(logits, dim=-1), v)
        found: Tensor = self.output(mixed.transpose(1, 2).reshape(*states.shape[:2], -1))
        return found

    def _split(self, states: Tensor) -> Tensor:
        return states.view(*states.shape[:2], self.num_heads, self.head_dim).transpose(1, 2)


class PlainFeedForward(nn.Module):
    """The gated feed-forward layer of T5 v1.1."""

    def __init__(self, d_model: int, d_ff: int) -> None:
        super().__init__()
        self.gate, self.up = nn.Linear(d_model, d_ff, bias=False), nn.Linear(d_model, d_ff, bias=False)
        self.down = nn.Linear(d_ff, d_model, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``[B, T, D]`` to ``[B, T, D]``."""
        hidden = F.gelu(self.gate(x), approximate="tanh") * self.up(x)
        out: Tensor = self.down(hidden)
        return out


class PlainGate(nn.Module):
    """The gate ``[B]``: every token and slot is projected, then the real ones are averaged."""

    def __init__(self, d_model: int, *, released: bool) -> None:
        super().__init__()
        self.released = released
        self.gate_text, self.gate_visual = _projection(d_model), _projection(d_model)

    def forward(self, text: Tensor, text_mask: Tensor, visual: Tensor, visual_mask: Tensor) -> Tensor:
        """Return the gate."""
        return self.gate_value(text, text_mask, visual, visual_mask)

    def gate_value(self, text: Tensor, text_mask: Tensor, visual: Tensor, visual_mask: Tensor) -> Tensor:
        """Return the gate."""
        means = _average(self.gate_text(text), text_mask), _average(self.gate_visual(visual), visual_mask)
        gate = _gate(*means, released=self.released)
        return gate.masked_fill(~visual_mask.any(1), 0)  # the gradient of a cosine with 0 overflows float16


class PlainBlock(PlainGate):
    """``H + g * A``, or as released ``H + g * F`` with ``R = H + A`` and ``F = R + FFN(LN(R))``."""

    def __init__(self, shape: Shape, *, released: bool) -> None:
        d_model, num_heads, head_dim, d_ff = shape.widths.values()
        super().__init__(d_model, released=released)
        self.norm = PlainNorm(d_model)
        self.attention = PlainAttention(d_model, num_heads, head_dim, 1.0 if released else head_dim**-0.5)
        if released:
            self.feed_forward_norm = PlainNorm(d_model)
            self.feed_forward = PlainFeedForward(d_model, d_ff)

    def forward(self, text: Tensor, text_mask: Tensor, visual: Tensor, visual_mask: Tensor) -> Tensor:
        """Return ``[B, T, D]``."""
        found = self.attention(self.norm(text), visual, visual_mask)
        if self.released:
            found = text + found
            found = found + self.feed_forward(self.feed_forward_norm(found))
        out: Tensor = text + self.gate_value(text, text_mask, visual, visual_mask)[:, None, None] * found
        return out


def build_block(shape: Shape, weights: Mapping[str, Tensor], *, released: bool) -> nn.Module:
    """Return the plain block with our weights."""
    return with_weights(PlainBlock(shape, released=released), weights)


def build_gate(shape: Shape, weights: Mapping[str, Tensor]) -> nn.Module:
    """Return the plain gate with our weights."""
    return with_weights(PlainGate(shape.widths["d_model"], released=True), weights)


def with_weights(module: nn.Module, weights: Mapping[str, Tensor]) -> nn.Module:
    """Return the module with those of our weights that it has."""
    module.load_state_dict({name: weights[name] for name in module.state_dict()})
    return module


def _projection(d_model: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(d_model, GATE_HIDDEN, bias=False), nn.Linear(GATE_HIDDEN, GATE_OUT, bias=False))


def _average(states: Tensor, mask: Tensor) -> Tensor:
    weights = mask[..., None].to(states.dtype)
    return (states * weights).sum(1) / weights.sum(1).clamp(min=1)


def _gate(text: Tensor, visual: Tensor, *, released: bool) -> Tensor:
    wide = torch.promote_types(text.dtype, torch.float32)  # in 16 bits the gradient of a cosine is mostly rounding
    cosine = F.cosine_similarity(text.to(wide), visual.to(wide), dim=-1).to(text.dtype)
    gate = F.leaky_relu(math.exp(0.5) * cosine, 0.01)
    return F.leaky_relu(gate, 0.01) if released else gate
