"""Run a function on a few examples at a time, so that intermediate results stay in the CPU's caches."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

NUM_TOKENS = 2048  # per slice: states of width 768 take 6 MiB in float32


def in_slices(function: Callable[..., Tensor], first: Tensor, *others: Tensor, whole: bool = False) -> Tensor:
    """Return ``function(first, *others)``; on a CPU without gradients, compute it for a few examples at a time.

    The function treats each example independently and returns ``[B, T, D]`` like ``first``; hooks on modules that it
    calls run once per slice. Set ``whole`` in training: gradient checkpointing runs the first forward pass without
    gradients, and dropout masks would then depend on the slices.
    """
    batch, num_tokens = first.shape[:2]
    size = max(1, NUM_TOKENS // max(num_tokens, 1))
    slices = not (whole or torch.is_grad_enabled() or torch.compiler.is_compiling()) and first.device.type == "cpu"
    if not slices or batch <= size:
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
