"""The limit of a block: its matrix products and nothing else, forward and backward.

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
from umie.errors import UnknownNameError
from umie.fusion.gated import GATE_HIDDEN, GATE_OUT

# The operands of each product (rows, weight), and an operand that has the shape of the result.
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
BLOCKS = ("released", "paper", "cross_attention", "gate")


def bare_products(shape: Shape, block: str, weights: Mapping[str, Tensor]) -> nn.Module:
    """Return a module that computes the matrix products of a block and nothing else.

    It is called like the block and returns the result of its last product. Operands of the right shapes are made
    beforehand, contiguous; padding is multiplied too. The backward pass computes the two products of each forward
    product and leaves no gradients. The gate of a whole block is not included.

    Args:
        shape: its widths and batch.
        block: one of ``BLOCKS``.
        weights: the state dict of our released block.

    Raises:
        UnknownNameError: the block has no products.
    """
    if block not in BLOCKS:
        raise UnknownNameError("block with matrix products", block, BLOCKS)
    return BareGate(shape, weights) if block == "gate" else BareBlock(shape, weights, block == "released")


class Bare(nn.Module):
    """Operands by name; they are buffers, so that they move with the module."""

    def __init__(self, **operands: Tensor) -> None:
        super().__init__()
        for name, operand in operands.items():
            self.register_buffer(name, operand, persistent=False)

    def forward(self, text: Tensor, text_mask: Tensor, visual: Tensor, visual_mask: Tensor) -> Tensor:
        """Compute the products of the forward pass; ``backward`` computes the others."""
        out: Tensor = _Products.apply(self, text, visual)
        return out

    def multiply(self, states: Mapping[str, Tensor]) -> Tensor:
        """Compute the products of the forward pass and return the last result."""
        raise NotImplementedError

    def multiply_back(self, states: Mapping[str, Tensor]) -> None:
        """Compute the products of the backward pass."""
        raise NotImplementedError


class BareBlock(Bare):
    """The products of attention and its projections, and of the feed-forward layer if the block has one."""

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
        """Compute the products of the forward pass."""
        states = {**dict(self.named_buffers()), **states}
        for rows, weight, _ in PROJECTIONS:
            F.linear(states[rows], states[weight])
        for left, right, _ in ATTENTION:
            torch.matmul(states[left], states[right])
        for rows, weight, _ in (*OUTPUT, *self.last):
            out = F.linear(states[rows], states[weight])
        return out

    def multiply_back(self, states: Mapping[str, Tensor]) -> None:
        """Compute the products of the backward pass."""
        states = {**dict(self.named_buffers()), **states}
        for product in reversed((*OUTPUT, *self.last)):
            _linear_back(states, *product)
        for left, right, result in reversed(ATTENTION):
            torch.matmul(states[result], states[right].mT)
            torch.matmul(states[left].mT, states[result])
        for product in reversed(PROJECTIONS):
            _linear_back(states, *product)


class BareGate(Bare):
    """The products of the gate in its cheap form; a mean is a product too."""

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
        """Compute the products of the forward pass."""
        own = dict(self.named_buffers())
        for side in ("text", "visual"):
            torch.bmm(own[f"{side}_shares"], states[side])
        own |= {side: own[f"{side}_mean"] for side in ("text", "visual")}
        for rows, weight, _ in GATE:
            out = F.linear(own[rows], own[weight])
        return out

    def multiply_back(self, states: Mapping[str, Tensor]) -> None:
        """Compute the products of the backward pass."""
        own = dict(self.named_buffers())
        own |= {side: own[f"{side}_mean"] for side in ("text", "visual")}
        for product in reversed(GATE):
            _linear_back(own, *product)
        for side in ("text", "visual"):  # the shares have no gradient
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


def _linear_back(states: Mapping[str, Tensor], rows: str, weight: str, result: str) -> None:
    """Compute the gradients of rows and weight as autograd does for ``F.linear``."""
    grad = states[result].flatten(0, -2)
    torch.mm(grad, states[weight])
    torch.mm(grad.T, states[rows].flatten(0, -2))
