"""The limit of a block: its matrix products and nothing else, forward and backward.

Shapes: B batch, T text tokens, V visual slots, D model width, H heads, d head width, I = H * d, F feed-forward width.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from umie.bench.shapes import Shape
from umie.errors import UnknownNameError
from umie.fusion.gate import GATE_HIDDEN, GATE_OUT

# Each product: its kind, its two operands by name, and an operand that has the shape of its result.
Product = tuple[str, str, str, str]
ATTENTION: tuple[Product, ...] = (
    ("linear", "text", "query", "mixed"),
    ("linear", "visual", "key", "slots"),
    ("linear", "visual", "value", "slots"),
    ("matmul", "q", "k", "p"),
    ("matmul", "p", "v", "q"),
)
OUTPUT: tuple[Product, ...] = (("linear", "mixed", "output", "grad"),)
FEED_FORWARD: tuple[Product, ...] = (
    ("linear", "text", "gate", "hidden"),
    ("linear", "text", "up", "hidden"),
    ("linear", "hidden", "down", "grad"),
)
MEANS: tuple[Product, ...] = (
    ("mean", "text_shares", "text", "text_mean"),
    ("mean", "visual_shares", "visual", "visual_mean"),
)
GATE: tuple[Product, ...] = (
    ("linear", "text_mean", "text_first", "text_hidden"),
    ("linear", "text_hidden", "text_second", "text_out"),
    ("linear", "visual_mean", "visual_first", "visual_hidden"),
    ("linear", "visual_hidden", "visual_second", "visual_out"),
)
MULTIPLY: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "linear": F.linear,
    "matmul": torch.matmul,
    "mean": torch.bmm,
}
BLOCKS = ("released", "paper", "cross_attention", "gate")


def bare_products(shape: Shape, block: str, weights: Mapping[str, Tensor]) -> nn.Module:
    """Return a module that computes the matrix products of a block and nothing else.

    It is called like the block and returns the result of its last product. Operands of the right shapes are made
    beforehand, contiguous; padding is multiplied too. The backward pass computes the two products of each forward
    product and leaves no gradients. The gate of a whole block is not included; by itself it is in its cheap form,
    where a mean is a product too. The weights are the state dict of our released block.

    Raises:
        UnknownNameError: the block is not one of ``BLOCKS``.
    """
    if block not in BLOCKS:
        raise UnknownNameError("block with matrix products", block, BLOCKS)
    d_model, num_heads, head_dim, d_ff = shape.widths.values()
    batch, tokens, slots, inner = shape.batch, shape.tokens, shape.slots, num_heads * head_dim
    operands: dict[str, Tensor] = {}
    if block == "gate":
        for side, number in (("text", tokens), ("visual", slots)):
            operands |= {
                f"{side}_first": weights[f"gate_{side}.0.weight"],
                f"{side}_second": weights[f"gate_{side}.1.weight"],
                f"{side}_shares": torch.full((batch, 1, number), 1 / number),
                f"{side}_mean": torch.ones(batch, d_model),
                f"{side}_hidden": torch.ones(batch, GATE_HIDDEN),
                f"{side}_out": torch.ones(batch, GATE_OUT),
            }
        return BareProducts(MEANS, GATE, operands)
    generator = torch.Generator().manual_seed(0)

    def random(*sizes: int) -> Tensor:
        return torch.randn(*sizes, generator=generator)

    operands |= {name: weights[f"attention.{name}.weight"] for name in ("query", "key", "value", "output")}
    operands |= {
        "mixed": random(batch, tokens, inner),
        "slots": random(batch, slots, inner),
        "q": random(batch, num_heads, tokens, head_dim),
        "k": random(batch, num_heads, slots, head_dim).mT,
        "v": random(batch, num_heads, slots, head_dim),
        "p": random(batch, num_heads, tokens, slots).softmax(-1),
    }
    if block != "released":
        return BareProducts(ATTENTION, OUTPUT, operands)
    operands |= {name: weights[f"feed_forward.{name}.weight"] for name in ("gate", "up", "down")}
    operands["hidden"] = random(batch, tokens, d_ff)
    return BareProducts(ATTENTION, OUTPUT + FEED_FORWARD, operands)


class BareProducts(nn.Module):
    """Products in order; their operands are buffers, so that they move with the module.

    The result of each of the ``last`` products is held until the next one is computed.
    """

    def __init__(self, first: tuple[Product, ...], last: tuple[Product, ...], operands: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.first, self.last = first, last
        for name, operand in operands.items():
            self.register_buffer(name, operand, persistent=False)

    def forward(self, text: Tensor, text_mask: Tensor, visual: Tensor, visual_mask: Tensor) -> Tensor:
        """Compute the products of the forward pass and return the last result; ``backward`` computes the others."""
        out: Tensor = _Products.apply(self, text, visual)
        return out


class _Products(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, bare: BareProducts, text: Tensor, visual: Tensor) -> Tensor:
        ctx.bare = bare
        ctx.save_for_backward(text, visual)
        states = {**dict(bare.named_buffers()), "text": text, "visual": visual}
        for kind, left, right, _ in bare.first:
            MULTIPLY[kind](states[left], states[right])
        for kind, left, right, _ in bare.last:
            out = MULTIPLY[kind](states[left], states[right])
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[None, None, None]:
        text, visual = ctx.saved_tensors
        states = {**dict(ctx.bare.named_buffers()), "text": text, "visual": visual, "grad": grad}
        for kind, left, right, result in reversed(ctx.bare.first + ctx.bare.last):
            if kind == "linear":  # as autograd does it
                flat = states[result].flatten(0, -2)
                torch.mm(flat, states[right])
                torch.mm(flat.T, states[left].flatten(0, -2))
            elif kind == "mean":  # the shares have no gradient
                torch.bmm(states[left].mT, states[result][:, None])
            else:
                torch.matmul(states[result], states[right].mT)
                torch.matmul(states[left].mT, states[result])
        return None, None, None
