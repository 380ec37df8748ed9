"""The matrix products of a block with nothing between them, forward and backward.

Shapes: B batch, T text tokens, V visual slots, D model width, H heads, d head width, I = H * d, F feed-forward width.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from umie.bench.shapes import Shape
from umie.fusion.gated import GATE_HIDDEN, GATE_OUT

# What is multiplied: the rows, the weight that they meet, and what has the shape of the outcome.
PROJECTIONS = (("text", "query", "mixed"), ("visual", "key", "slots"), ("visual", "value", "slots"))
ATTENTION = (("q", "k", "p"), ("p", "v", "q"))
OUTPUT = (("mixed", "output", "grad"),)
FEED_FORWARD = (("text", "gate", "hidden"), ("text", "up", "hidden"), ("hidden", "down", "grad"))
GATE = (
    ("text", "text_first", "text_hidden"),
    ("text_hidden", "text_second", "text_out"),
    ("visual", "visual_first", "visual_hidden"),
    ("visual_hidden", "visual_second", "visual_out"),
)


class Bare(nn.Module):
    """Operands by name, as buffers, so that they go where the module goes."""

    name = "bare products"

    def __init__(self, **operands: Tensor) -> None:
        super().__init__()
        for name, operand in operands.items():
            self.register_buffer(name, operand, persistent=False)

    def forward(self, text: Tensor, text_mask: Tensor, visual: Tensor, visual_mask: Tensor) -> Tensor:
        """Do the products of the forward pass, and let ``backward`` do the others."""
        out: Tensor = _Products.apply(self, text, visual)
        return out

    def multiply(self, states: Mapping[str, Tensor]) -> Tensor:
        """Do the products of the forward pass and return the last outcome."""
        raise NotImplementedError

    def multiply_back(self, states: Mapping[str, Tensor]) -> None:
        """Do the products of the backward pass."""
        raise NotImplementedError


class BareBlock(Bare):
    """Those of attention with its projections, and of the feed-forward layer where the block has one."""

    def __init__(self, shape: Shape, weights: Mapping[str, Tensor], released: bool) -> None:
        _, num_heads, head_dim, d_ff = shape.widths.values()
        batch, tokens, slots = shape.batch, shape.tokens, shape.slots
        inner = num_heads * head_dim
        generator = torch.Generator().manual_seed(0)

        def random(*sizes: int) -> Tensor:
            return torch.randn(*sizes, generator=generator)

        names = ("query", "key", "value", "output")
        operands = {name: weights[f"attention.{name}.weight"] for name in names}
        operands |= {"mixed": random(batch, tokens, inner), "slots": random(batch, slots, inner)}
        operands |= {
            "q": random(batch, num_heads, tokens, head_dim),
            "k": random(batch, num_heads, slots, head_dim).mT,
            "v": random(batch, num_heads, slots, head_dim),
            "p": random(batch, num_heads, tokens, slots).softmax(-1),
        }
        if released:
            operands |= {name: weights[f"feed_forward.{name}.weight"] for name in ("gate", "up", "down")}
            operands["hidden"] = random(batch, tokens, d_ff)
        super().__init__(**operands)
        self.last = FEED_FORWARD if released else ()

    def multiply(self, states: Mapping[str, Tensor]) -> Tensor:
        """Do the products of the forward pass."""
        states = {**dict(self.named_buffers()), **states}
        for rows, weight, _ in PROJECTIONS:
            F.linear(states[rows], states[weight])
        for left, right, _ in ATTENTION:
            torch.matmul(states[left], states[right])
        for rows, weight, _ in (*OUTPUT, *self.last):
            out = F.linear(states[rows], states[weight])
        return out

    def multiply_back(self, states: Mapping[str, Tensor]) -> None:
        """Do the products of the backward pass."""
        states = {**dict(self.named_buffers()), **states}
        for product in reversed((*OUTPUT, *self.last)):
            _linear_back(states, *product)
        for left, right, outcome in reversed(ATTENTION):
            torch.matmul(states[outcome], states[right].mT)
            torch.matmul(states[left].mT, states[outcome])
        for product in reversed(PROJECTIONS):
            _linear_back(states, *product)


class BareGate(Bare):
    """Those of the gate in its cheap form; a mean is a product as well."""

    def __init__(self, shape: Shape, weights: Mapping[str, Tensor]) -> None:
        d_model, batch = shape.widths["d_model"], shape.batch
        operands: dict[str, Tensor] = {}
        for side, number in (("text", shape.tokens), ("visual", shape.slots)):
            operands |= {
                f"{side}_first": weights[f"gate_{side}.0.weight"],
                f"{side}_second": weights[f"gate_{side}.1.weight"],
                f"{side}_shares": torch.full((batch, 1, number), 1 / number),
                f"{side}_mean": torch.ones(batch, d_model),
                f"{side}_hidden": torch.ones(batch, GATE_HIDDEN),
                f"{side}_out": torch.ones(batch, GATE_OUT),
            }
        super().__init__(**operands)

    def multiply(self, states: Mapping[str, Tensor]) -> Tensor:
        """Do the products of the forward pass."""
        own = dict(self.named_buffers())
        for side in ("text", "visual"):
            torch.bmm(own[f"{side}_shares"], states[side])
        own |= {side: own[f"{side}_mean"] for side in ("text", "visual")}
        for rows, weight, _ in GATE:
            out = F.linear(own[rows], own[weight])
        return out

    def multiply_back(self, states: Mapping[str, Tensor]) -> None:
        """Do the products of the backward pass."""
        own = dict(self.named_buffers())
        own |= {side: own[f"{side}_mean"] for side in ("text", "visual")}
        for product in reversed(GATE):
            _linear_back(own, *product)
        for side in ("text", "visual"):  # the shares need no gradient
            torch.bmm(own[f"{side}_shares"].mT, own[f"{side}_mean"][:, None])


class _Products(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, bare: Bare, text: Tensor, visual: Tensor) -> Tensor:
        ctx.bare = bare
        ctx.save_for_backward(text, visual)
        return bare.multiply({"text": text, "visual": visual})

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[None, None, None]:
        text, visual = ctx.saved_tensors
        ctx.bare.multiply_back({"text": text, "visual": visual, "grad": grad})
        return None, None, None


def _linear_back(states: Mapping[str, Tensor], rows: str, weight: str, outcome: str) -> None:
    """Do the two products for the gradients of rows and weight, as autograd does them for ``F.linear``."""
    grad = states[outcome].flatten(0, -2)
    torch.mm(grad, states[weight])
    torch.mm(grad.T, states[rows].flatten(0, -2))
