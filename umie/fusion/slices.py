"""Examples a few at a time: what a CPU computes without gradients stays in its caches, and memory is used again."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

NUM_TOKENS = 2048  # at a time: states of width 768 are 6 MiB in float32


def in_slices(function: Callable[..., Tensor], first: Tensor, *others: Tensor) -> Tensor:
    """Return ``function(first, *others)``, on a CPU without gradients for some examples at a time.

    Args:
        function: treats each example by itself, and returns ``[B, T, D]`` like ``first``.
        first: ``[B, T, D]``.
        others: tensors whose first dimension is B.

    Hooks on parts that the function calls see one slice after another.
    """
    batch, num_tokens = first.shape[:2]
    size = max(1, NUM_TOKENS // max(num_tokens, 1))
    if torch.is_grad_enabled() or first.device.type != "cpu" or torch.compiler.is_compiling() or batch <= size:
        return function(first, *others)
    out: Tensor | None = None
    for start in range(0, batch, size):
        rows = slice(start, start + size)
        part = function(first[rows], *(other[rows] for other in others))
        if out is None:
            out = part.new_empty(batch, *part.shape[1:])
        out[rows] = part
    assert out is not None
    return out
