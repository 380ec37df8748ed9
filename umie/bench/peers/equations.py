"""References for peers: the equations of other libraries' blocks, written plainly over their own parameters.

Shapes: B batch, T text tokens, V visual slots, D model width, H heads, d head width, I = H * d.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

Parameters = Mapping[str, Tensor]
# parameters, text [B, T, D], text mask [B, T], visual [B, V, D], visual mask [B, V] -> [B, T, D]
Function = Callable[[Parameters, Tensor, Tensor, Tensor, Tensor], Tensor]


class Equation(nn.Module):
    """A function of a module's parameters, by their names in the module, whose own code is not called."""

    def __init__(self, module: nn.Module, function: Function) -> None:
        super().__init__()
        for name, child in module.named_children():
            self.add_module(name, child)
        self.function = function

    def forward(self, text: Tensor, text_mask: Tensor, visual: Tensor, visual_mask: Tensor) -> Tensor:
        """Return ``[B, T, D]``."""
        return self.function(dict(self.named_parameters()), text, text_mask, visual, visual_mask)


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """Return ``x / sqrt(mean(x^2) + eps) * weight``."""
    return x / (x.square().mean(-1, keepdim=True) + eps).sqrt() * weight


def layer_norm(x: Tensor, weight: Tensor, bias: Tensor, eps: float = 1e-5) -> Tensor:
    """Return ``(x - mean) / sqrt(variance + eps) * weight + bias``."""
    x = x - x.mean(-1, keepdim=True)
    return x / (x.square().mean(-1, keepdim=True) + eps).sqrt() * weight + bias


def multi_head_attention(
    states: Tensor,
    slots: Tensor,
    weights: tuple[Tensor, Tensor, Tensor, Tensor],
    *,
    num_heads: int,
    scale: float,
    mask: Tensor | None = None,
) -> Tensor:
    """Return multi-head attention with its projections, computed head by head.

    Args:
        states: ``[B, T, D]``.
        slots: ``[B, V, D]``.
        weights: query, key and value ``[I, D]``, output ``[D, I]``.
        num_heads: H.
        scale: the factor on the logits.
        mask: bool ``[B, V]``, True = real, at least one per example; None if all are real.
    """
    query, key, value, output = weights
    found = []
    for q, k, v in zip(*(weight.chunk(num_heads) for weight in (query, key, value)), strict=True):
        logits = (states @ q.T) @ (slots @ k.T).mT * scale
        if mask is not None:
            logits = logits.masked_fill(~mask[:, None], -torch.inf)
        found.append(logits.softmax(-1) @ (slots @ v.T))
    return torch.cat(found, -1) @ output.T
