"""`xformers`: `memory_efficient_attention` on CUDA, over packed tokens and slots, so that no padding is computed.

What xformers 0.0.35 has to offer, as its source says:

- Two of its kernels are torch's own: `fa2F-pt`/`fa2B-pt` (flash; float16 and bfloat16, head width up to 256, compute
  capability 8.0 and up, and a backward pass that is not deterministic) and `cutlassF-pt`/`cutlassB-pt` (float32 too,
  any head width, capability up to 9.0). Both take a ``BlockDiagonalMask`` with query blocks unlike the key blocks,
  with gradients, dropout and a scale. The forward pass leaves logsumexps packed (flash) or padded (cutlass), and only
  the backward pass of the same kind reads them.
- Its own extension `_C` holds none of the two. The wheel is built for CUDA 12 against torch's stable interface: it
  loads under a later torch where ``libcudart.so.12`` is found, and not beside a torch built for CUDA 13. Then the
  dispatcher refuses every kernel on CUDA, torch's own with them ("xFormers wasn't build with CUDA support"), because
  one flag stands for both: `_kernels_of_torch` raises it for the length of a call.
- The lengths of the blocks are Python lists, so that packing waits for the device once.
- Head widths are multiples of 8 (16 bits; 4 in float32): q, k and v are padded with zeros to the next, which changes
  nothing, for the scale is given.
"""

from __future__ import annotations

import functools
import importlib
import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from umie.fusion.kernels import registry
from umie.fusion.kernels.base import KernelCase
from umie.fusion.packing import NOT_COMPILED, PackedKernel, Packing

DTYPES = (torch.float32, torch.float16, torch.bfloat16)
ALIGNMENT = 8  # of the head width
_FLAG = threading.RLock()  # the flag is one for all threads


@registry.register("xformers")
class Xformers(PackedKernel):
    """Block-diagonal attention between ragged texts and ragged slots; projections of real tokens alone."""

    name = "xformers"

    def unsupported_reason(self, case: KernelCase) -> str | None:
        """Return the reason why xformers cannot run the case; imports it on CUDA alone."""
        if case.compiling:
            return NOT_COMPILED
        if case.device != "cuda":
            return f"xformers has kernels for CUDA alone, and this is {case.device}"
        if not torch.cuda.is_available():
            return "no CUDA device here: xformers has kernels for CUDA alone"
        if case.dtype not in DTYPES:
            return f"xformers has kernels for {', '.join(map(str, DTYPES))}, not for {case.dtype}"
        try:
            fmha = library()
        except Exception as error:  # a broken installation must not stop other backends
            return f"xformers cannot be imported ({_one_line(error)}): pip install xformers"
        sample = torch.empty(1, 2, case.num_heads, aligned(case.head_dim), dtype=case.dtype, device=case.device)
        bias = fmha.BlockDiagonalMask.from_seqlens([1, 1], [1, 1], device=sample.device)
        inputs = fmha.Inputs(sample, sample, sample, attn_bias=bias, p=case.dropout, scale=1.0)
        return refusal(fmha, inputs, needs_grad=case.needs_grad)

    def cost(self, case: KernelCase) -> float | None:
        """Return None: no GPU has been measured, so that nobody knows where it is the fastest."""
        return None

    def blocks(self, q: Tensor, k: Tensor, v: Tensor, packing: Packing, scale: float, dropout: float) -> Tensor:
        """Return block-diagonal attention by xformers; see the contract."""
        fmha = library()
        if scale <= 0:  # the kernels take the largest logit before they scale
            q, scale = q * scale, 1.0
        width = q.shape[-1]
        q, k, v = (F.pad(states, (0, aligned(width) - width)).contiguous() for states in (q, k, v))
        bias = fmha.BlockDiagonalMask.from_seqlens(list(packing.num_tokens), list(packing.num_slots), device=q.device)
        with _kernels_of_torch(fmha):
            mixed: Tensor = fmha.memory_efficient_attention(q, k, v, attn_bias=bias, p=dropout, scale=scale)
        return mixed[..., :width]


@functools.cache
def library() -> Any:
    """Return ``xformers.ops.fmha``, imported quietly: what it warns about its own extension is of no account here."""
    logger = logging.getLogger("xformers")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        return importlib.import_module("xformers.ops.fmha")
    finally:
        logger.setLevel(level)


def refusal(fmha: Any, inputs: Any, *, needs_grad: bool) -> str | None:
    """Return why xformers has no kernel for these inputs, kernel by kernel in its words; None where it has.

    Args:
        fmha: the library.
        inputs: its ``Inputs``, with a mask of two blocks at least.
        needs_grad: whether a backward kernel is asked for as well.
    """
    with _kernels_of_torch(fmha):
        try:
            forward = fmha._dispatch_fw(inputs, needs_grad)
            if needs_grad:
                fmha._dispatch_bw(inputs, varlen_lse_packed=forward.VARLEN_LSE_PACKED)
        except NotImplementedError as error:
            return _reasons(str(error))
    return None


@contextmanager
def _kernels_of_torch(fmha: Any) -> Iterator[None]:
    """Let xformers use the kernels that torch ships, also where its own extension is not loaded.

    What torch lacks is still refused: whether a kernel is there is another check, and so is its signature.
    """
    with _FLAG:
        before, fmha.common._built_with_cuda = fmha.common._built_with_cuda, True
        try:
            yield
        finally:
            fmha.common._built_with_cuda = before


def _reasons(message: str) -> str:
    """Return xformers' message in one line, without the inputs that it repeats."""
    reasons: dict[str, list[str]] = {}
    for line in message.splitlines():
        name, found, _ = line.partition("` is not supported because:")
        if found:
            reasons[name.strip("`")] = []
        elif reasons:
            reasons[list(reasons)[-1]].append(line.strip())
    return "; ".join(f"{name}: {', '.join(lines)}" for name, lines in reasons.items()) or _one_line(message)


def aligned(width: int) -> int:
    """Return the head width that xformers is given for one of ``width``."""
    return -(-width // ALIGNMENT) * ALIGNMENT


def _one_line(error: object) -> str:
    return " ".join(str(error).split())
