"""What a block cannot do without: its bare matrix products, and the floor of bytes and operations.

Shapes: B batch, T text tokens, V visual slots, D model width, H heads, d head width, I = H * d, F feed-forward width.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from umie.bench.products import BareBlock, BareGate
from umie.bench.shapes import Inputs, Shape
from umie.errors import UmieError, UnknownNameError
from umie.fusion.gated import GATE_HIDDEN, GATE_OUT

BLOCKS = ("released", "paper", "cross_attention", "gate", "concat")
GATE_PRODUCTS = GATE_HIDDEN * GATE_OUT  # of the second projection


def has_products(block: str) -> bool:
    """Return whether a block multiplies matrices at all, so that `bare_products` has a limit for it."""
    return block in BLOCKS and block != "concat"


def bare_products(shape: Shape, block: str, weights: Mapping[str, Tensor]) -> nn.Module:
    """Return the matrix products of a block with nothing between them, as a module.

    It is called as the block is and gives the outcome of its last product. Every product takes operands of the right
    shapes that were made beforehand, contiguous; padding is multiplied too. ``backward`` of what it returns does the
    products of the backward pass, two for each, and leaves no gradients. The gate of a whole block is not counted.

    Args:
        shape: its widths and its batch.
        block: ``released``, ``paper``, ``cross_attention`` or ``gate``.
        weights: the state dict of our released block.

    Raises:
        UmieError: the block has no products.
    """
    if not has_products(block):
        raise UmieError(
            f"block {block!r} has no matrix products: give one of {', '.join(filter(has_products, BLOCKS))}"
        )
    return BareGate(shape, weights) if block == "gate" else BareBlock(shape, weights, block == "released")


def multiplications(shape: Shape, block: str, *, backward: bool = False, inputs: Inputs | None = None) -> float:
    """Return how many multiplications the products of a block take; each has an addition with it.

    They are those of `bare_products`, in the form with projections: `absorbed` may need fewer.

    Args:
        shape: its widths, and without ``inputs`` its batch.
        block: one of ``BLOCKS``.
        backward: count those of the backward pass as well.
        inputs: count what is real in them alone, and nothing for an example without an image; None counts padding.
    """
    _check(block)
    d_model, num_heads, head_dim, d_ff = shape.widths.values()
    inner = num_heads * head_dim
    tokens, slots = _lengths(shape, inputs)
    seen = slots > 0
    tokens, slots = tokens[seen], slots[seen]
    num_tokens, num_slots, num_pairs = (float(number.sum()) for number in (tokens, slots, tokens * slots))
    if block == "concat":
        return 0.0
    if block == "gate":
        means = (num_tokens + num_slots) * d_model
        linears = 2.0 * len(tokens) * (d_model * GATE_HIDDEN + GATE_PRODUCTS)
        return means * (2 if backward else 1) + linears * (3 if backward else 1)
    count = 2 * (num_tokens + num_slots) * d_model * inner + 2 * num_pairs * inner
    if block == "released":
        count += 3 * num_tokens * d_model * d_ff
    return count * (3 if backward else 1)


def least_bytes(
    shape: Shape, block: str, dtype: torch.dtype, *, backward: bool = False, inputs: Inputs | None = None
) -> float:
    """Return the bytes that a block moves if it reads its states and weights once and writes its output once.

    Masks are not counted. The backward pass reads the output's gradient and writes those of states and weights.

    Args:
        shape: its widths, and without ``inputs`` its batch.
        block: one of ``BLOCKS``.
        dtype: of states and weights.
        backward: count those of the backward pass as well.
        inputs: count what is real in them alone; None counts padding.
    """
    _check(block)
    d_model, num_heads, head_dim, d_ff = shape.widths.values()
    attention, gate = 4 * d_model * num_heads * head_dim, 2 * (d_model * GATE_HIDDEN + GATE_PRODUCTS)
    numbers = {
        "released": attention + 3 * d_model * d_ff + 2 * d_model + gate,
        "paper": attention + d_model + gate,
        "cross_attention": attention + d_model,
        "gate": gate,
        "concat": 0,
    }
    tokens, slots = (float(lengths.sum()) for lengths in _lengths(shape, inputs))
    states = (tokens + slots) * d_model
    output = {"gate": float(shape.batch), "concat": states}.get(block, tokens * d_model)
    return (numbers[block] + states + output) * dtype.itemsize * (2 if backward else 1)


def floor_s(
    shape: Shape,
    block: str,
    *,
    dtype: torch.dtype,
    rate: float,
    bandwidth: float,
    backward: bool = False,
    inputs: Inputs | None = None,
) -> float:
    """Return the seconds that a block cannot be faster than in the form with projections.

    Args:
        shape: its widths, and without ``inputs`` its batch.
        block: one of ``BLOCKS``.
        dtype: of states and weights.
        rate: multiplications and additions per second; see `matrix_rate`.
        bandwidth: bytes per second; see `copy_bandwidth`.
        backward: with the backward pass.
        inputs: count what is real in them alone; None counts padding.
    """
    num_bytes = least_bytes(shape, block, dtype, backward=backward, inputs=inputs)
    return max(num_bytes / bandwidth, 2 * multiplications(shape, block, backward=backward, inputs=inputs) / rate)


def matrix_rate(device: str, dtype: torch.dtype, *, size: int | None = None, repeats: int = 5) -> float:
    """Return multiplications and additions per second of one large product, the best of several.

    Args:
        device: where to measure.
        dtype: of both factors.
        size: their width and height; None takes 2,048 on a CPU and 8,192 elsewhere.
        repeats: measurements.
    """
    size = size or (2048 if torch.device(device).type == "cpu" else 8192)
    rows, weight = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    return 2 * size**3 / _best_s(lambda: F.linear(rows, weight), device, repeats)


def copy_bandwidth(device: str, *, num_bytes: int | None = None, repeats: int = 5) -> float:
    """Return bytes read and written per second by copying one large tensor, the best of several.

    Args:
        device: where to measure.
        num_bytes: of the tensor; None takes 256 MiB on a CPU and 1 GiB elsewhere, well beyond caches.
        repeats: measurements.
    """
    num_bytes = num_bytes or (1 << 28 if torch.device(device).type == "cpu" else 1 << 30)
    source = torch.ones(num_bytes // 4, device=device)
    target = torch.zeros_like(source)
    return 2 * source.nbytes / _best_s(lambda: target.copy_(source), device, repeats)


def _best_s(function: Callable[[], object], device: str, repeats: int) -> float:
    """Return the seconds of one call; on an accelerator calls are queued, so that launching them costs nothing."""
    queued = torch.device(device).type != "cpu"
    calls = 10 if queued else 1
    best = float("inf")
    for number in range(repeats + 1):
        if queued:
            torch.accelerator.synchronize(device)
        start = time.perf_counter()
        for _ in range(calls):
            function()
        if queued:
            torch.accelerator.synchronize(device)
        if number:  # the first one warms up
            best = min(best, (time.perf_counter() - start) / calls)
    return best


def _lengths(shape: Shape, inputs: Inputs | None) -> tuple[Tensor, Tensor]:
    """Return the numbers of tokens and of slots of each example."""
    if inputs is not None:
        return inputs.text_mask.sum(1).cpu(), inputs.visual_mask.sum(1).cpu()
    return torch.full((shape.batch,), shape.tokens), torch.full((shape.batch,), shape.slots)


def _check(block: str) -> None:
    if block not in BLOCKS:
        raise UnknownNameError("block", block, BLOCKS)
