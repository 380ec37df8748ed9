"""References: equations written plainly over a module's parameters; they share no code with the fusions or the peers.

Shapes: B batch, T text tokens, V visual slots, N real ones of an example, D model width, H heads, I = H * head width.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from umie.bench.peers import plain
from umie.bench.shapes import Shape

EPS = 1e-6
SLOPE = 0.01
Parameters = Mapping[str, Tensor]


class Equation(nn.Module):
    """A function of a module's parameters, by their names in the module, whose own code is not called.

    The function maps the parameters, text ``[B, T, D]``, text mask ``[B, T]``, visual ``[B, V, D]`` and visual mask
    ``[B, V]`` to ``[B, T, D]``, or for a gate to ``[B]``.
    """

    def __init__(self, module: nn.Module, function: Callable[[Parameters, Tensor, Tensor, Tensor, Tensor], Tensor]):
        super().__init__()
        for name, child in module.named_children():
            self.add_module(name, child)
        self.function = function

    def forward(self, text: Tensor, text_mask: Tensor, visual: Tensor, visual_mask: Tensor) -> Tensor:
        """Return the function's result."""
        return self.function(dict(self.named_parameters()), text, text_mask, visual, visual_mask)


def reference_layer(shape: Shape, weights: Mapping[str, Tensor], *, block: str) -> nn.Module:
    """Return the equation of one of ``products.BLOCKS`` with our weights.

    It is ``H + A``, ``H + g * A``, or as released ``H + g * F`` with ``R = H + A`` and ``F = R + FFN(LN(R))``, or the
    released gate ``g``, example by example. An example without an image keeps its text states, has a gate of 0, and
    passes gradients only to its text.
    """
    num_heads, head_dim = shape.widths["num_heads"], shape.widths["head_dim"]
    scale = 1.0 if block == "released" else 1 / math.sqrt(head_dim)
    holder: nn.Module = plain.build(shape, weights, block=block)  # only its parameters are used
    if block == "cross_attention":
        del holder.gate_text, holder.gate_visual

    def equation(
        parameters: Parameters, text: Tensor, text_mask: Tensor, visual: Tensor, visual_mask: Tensor
    ) -> Tensor:
        outs = []
        for states, real, slots, seen in zip(text, text_mask, visual, visual_mask, strict=True):
            if not seen.any():
                outs.append(text.new_zeros(()) if block == "gate" else states)
                continue
            if block != "cross_attention":
                gate = _gate(parameters, states[real], slots[seen], released=block != "paper")
            if block == "gate":
                outs.append(gate)
                continue
            normed = rms_norm(states, parameters["norm.weight"], EPS)
            projections = [parameters[f"attention.{name}.weight"] for name in ("query", "key", "value", "output")]
            found = multi_head_attention(
                normed[None], slots[seen][None], projections, num_heads=num_heads, scale=scale
            )[0]
            if block == "released":
                found = states + found
                normed = rms_norm(found, parameters["feed_forward_norm.weight"], EPS)
                feed_forward = [parameters[f"feed_forward.{name}.weight"] for name in ("gate", "up", "down")]
                found = found + gated_feed_forward(normed, *feed_forward)
            outs.append(states + (found if block == "cross_attention" else gate * found))
        return torch.stack(outs)

    return Equation(holder, equation)


def _gate(parameters: Parameters, states: Tensor, slots: Tensor, *, released: bool) -> Tensor:
    """Return the gate of one example, from its real tokens and slots ``[N, D]``."""
    sides = []
    for name, side in (("gate_text", states), ("gate_visual", slots)):
        sides.append(parameters[f"{name}.1.weight"] @ (parameters[f"{name}.0.weight"] @ side.mean(0)))
    gate = math.exp(0.5) * (sides[0] @ sides[1]) / (sides[0].norm() * sides[1].norm())
    slope = SLOPE * SLOPE if released else SLOPE  # LeakyReLU twice is LeakyReLU with its slope squared
    return torch.where(gate > 0, gate, slope * gate)


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """Return ``x / sqrt(mean(x^2) + eps) * weight``."""
    return x / (x.square().mean(-1, keepdim=True) + eps).sqrt() * weight


def gated_feed_forward(x: Tensor, gate: Tensor, up: Tensor, down: Tensor) -> Tensor:
    """Return ``Wo (gelu_tanh(W0 x) * W1 x)``."""
    return (F.gelu(x @ gate.T, approximate="tanh") * (x @ up.T)) @ down.T


def multi_head_attention(
    states: Tensor, slots: Tensor, weights: list[Tensor], *, num_heads: int, scale: float, mask: Tensor | None = None
) -> Tensor:
    """Return attention from ``states [B, T, D]`` over ``slots [B, V, D]`` with its projections, head by head.

    The weights are query, key and value ``[I, D]`` and output ``[D, I]``; ``mask`` is bool ``[B, V]``, True = real, at
    least one per example, or None if all are real.
    """
    query, key, value, output = weights
    found = []
    for q, k, v in zip(*(weight.chunk(num_heads) for weight in (query, key, value)), strict=True):
        logits = (states @ q.T) @ (slots @ k.T).mT * scale
        if mask is not None:
            logits = logits.masked_fill(~mask[:, None], -torch.inf)
        found.append(logits.softmax(-1) @ (slots @ v.T))
    return torch.cat(found, -1) @ output.T
