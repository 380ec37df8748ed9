"""References for our blocks and the plain ones: the equations, example by example, sharing no code with the fusions.

Shapes: B batch, T text tokens, V visual slots, N real ones of an example, D model width.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from umie.bench.peers.equations import Equation, Parameters, multi_head_attention, rms_norm
from umie.bench.peers.plain import PlainBlock, PlainGate, with_weights
from umie.bench.shapes import Shape

EPS = 1e-6
SLOPE = 0.01
BLOCKS = ("released", "paper", "cross_attention", "gate")


def reference_layer(shape: Shape, weights: Mapping[str, Tensor], *, block: str) -> nn.Module:
    """Return the equation of a block with our weights.

    An example without an image keeps its text states, has a gate of 0, and passes gradients only to its text.

    Args:
        shape: the widths.
        weights: the weights of our released block.
        block: one of ``BLOCKS``.
    """
    if block == "gate":
        return Equation(with_weights(PlainGate(shape.widths["d_model"], released=True), weights), _gates)
    holder: nn.Module = PlainBlock(shape, released=block == "released")  # only its parameters are used
    if block == "cross_attention":
        del holder.gate_text, holder.gate_visual
    return Equation(with_weights(holder, weights), partial(_states, block, shape.widths))


def _gates(parameters: Parameters, text: Tensor, text_mask: Tensor, visual: Tensor, visual_mask: Tensor) -> Tensor:
    """Return the released gate ``[B]``."""
    found = []
    for states, real, slots, seen in zip(text, text_mask, visual, visual_mask, strict=True):
        found.append(_gate(parameters, states[real], slots[seen], released=True) if seen.any() else text.new_zeros(()))
    return torch.stack(found)


def _states(
    block: str,
    widths: Mapping[str, int],
    parameters: Parameters,
    text: Tensor,
    text_mask: Tensor,
    visual: Tensor,
    visual_mask: Tensor,
) -> Tensor:
    """Return ``H + A``, ``H + g * A``, or as released ``H + g * F`` with ``R = H + A`` and ``F = R + FFN(LN(R))``."""
    scale = 1.0 if block == "released" else 1 / math.sqrt(widths["head_dim"])
    query, key, value, output = (parameters[f"attention.{name}.weight"] for name in ("query", "key", "value", "output"))
    outs = []
    for states, real, slots, seen in zip(text, text_mask, visual, visual_mask, strict=True):
        if not seen.any():
            outs.append(states)
            continue
        found = multi_head_attention(
            rms_norm(states, parameters["norm.weight"], EPS)[None],
            slots[seen][None],
            (query, key, value, output),
            num_heads=widths["num_heads"],
            scale=scale,
        )[0]
        if block == "released":
            found = states + found
            found = found + _feed_forward(parameters, found)
        if block != "cross_attention":
            found = _gate(parameters, states[real], slots[seen], released=block == "released") * found
        outs.append(states + found)
    return torch.stack(outs)


def _feed_forward(parameters: Parameters, states: Tensor) -> Tensor:
    """Return ``Wo (gelu_tanh(W0 LN(x)) * W1 LN(x))``."""
    gate, up, down = (parameters[f"feed_forward.{name}.weight"] for name in ("gate", "up", "down"))
    normed = rms_norm(states, parameters["feed_forward_norm.weight"], EPS)
    return (F.gelu(normed @ gate.T, approximate="tanh") * (normed @ up.T)) @ down.T


def _gate(parameters: Parameters, states: Tensor, slots: Tensor, *, released: bool) -> Tensor:
    """Return the gate of one example, from its real tokens and slots ``[N, D]``."""
    sides = []
    for name, side in (("gate_text", states), ("gate_visual", slots)):
        sides.append(parameters[f"{name}.1.weight"] @ (parameters[f"{name}.0.weight"] @ side.mean(0)))
    gate = math.exp(0.5) * (sides[0] @ sides[1]) / (sides[0].norm() * sides[1].norm())
    slope = SLOPE * SLOPE if released else SLOPE  # LeakyReLU twice is LeakyReLU with its slope squared
    return torch.where(gate > 0, gate, slope * gate)
