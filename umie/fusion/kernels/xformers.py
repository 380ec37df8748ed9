"""`xformers`: `memory_efficient_attention` on CUDA over packed tokens and slots, so that no padding is computed.

According to the source of xformers 0.0.35:

- Two of its kernels are torch's: `fa2F-pt`/`fa2B-pt` (flash; float16 and bfloat16, head width up to 256, compute
  capability 8.0 and up, nondeterministic backward pass) and `cutlassF-pt`/`cutlassB-pt` (also float32, any head width,
  capability up to 9.0). Both accept a ``BlockDiagonalMask`` whose query and key blocks differ, with gradients, dropout
  and a scale. The forward pass returns packed (flash) or padded (cutlass) logsumexps, which only the backward pass of
  the same kind can read.
- Its own extension `_C` contains neither. The wheel is built for CUDA 12 against torch's stable interface: it loads
  under a later torch if ``libcudart.so.12`` is found, but not with a torch built for CUDA 13. Then the dispatcher
  rejects every CUDA kernel, including torch's ("xFormers wasn't build with CUDA support"), because one flag covers
  both. `_torch_kernels_enabled` sets the flag during a call.
- Block lengths are Python lists, so packing synchronizes with the device once.
- Head widths must be multiples of 8 (16 bits; 4 in float32): q, k and v are zero-padded to the next multiple, which
  does not change the result because the scale is passed explicitly.
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

from umie.errors import one_line
from umie.fusion.kernels import registry
from umie.fusion.kernels.base import KernelCase
from umie.fusion.kernels.packing import NOT_COMPILED, PackedKernel, Packing

DTYPES = (torch.float32, torch.float16, torch.bfloat16)
ALIGNMENT = 8  # of the head width
_FLAG = threading.RLock()  # all threads share the flag


@registry.register("xformers")
class Xformers(PackedKernel):
    """Block-diagonal attention between ragged texts and ragged slots; projects only real tokens and slots.

    It has no cost, because it has not been measured on a GPU.
    """

    name = "xformers"

    def unsupported_reason(self, case: KernelCase) -> str | None:
        """Return why xformers cannot run the case; imports it only on CUDA."""
        if case.compiling:
            return NOT_COMPILED
        if case.device != "cuda":
            return f"xformers has kernels only for CUDA, not for {case.device}"
        if not torch.cuda.is_available():
            return "no CUDA device is available, and xformers has kernels only for CUDA"
        if case.dtype not in DTYPES:
            return f"xformers has kernels for {', '.join(map(str, DTYPES))}, not for {case.dtype}"
        try:
            fmha = library()
        except Exception as error:  # a broken installation must not affect other backends
            return f"xformers cannot be imported ({one_line(error)}): pip install 'umie[xformers]'"
        sample = torch.empty(1, 2, case.num_heads, aligned(case.head_dim), dtype=case.dtype, device=case.device)
        bias = fmha.BlockDiagonalMask.from_seqlens([1, 1], [1, 1], device=sample.device)
        inputs = fmha.Inputs(sample, sample, sample, attn_bias=bias, p=case.dropout, scale=1.0)
        return refusal(fmha, inputs, needs_grad=case.needs_grad)

    def blocks(self, q: Tensor, k: Tensor, v: Tensor, packing: Packing, scale: float, dropout: float) -> Tensor:
        """Return block-diagonal attention, as described in ``PackedKernel.blocks``."""
        fmha = library()
        if scale <= 0:  # the kernels subtract the largest logit before scaling
            q, scale = q * scale, 1.0
        width = q.shape[-1]
        q, k, v = (F.pad(states, (0, aligned(width) - width)).contiguous() for states in (q, k, v))
        bias = fmha.BlockDiagonalMask.from_seqlens(list(packing.num_tokens), list(packing.num_slots), device=q.device)
        with _torch_kernels_enabled(fmha):
            mixed: Tensor = fmha.memory_efficient_attention(q, k, v, attn_bias=bias, p=dropout, scale=scale)
        return mixed[..., :width]


@functools.cache
def library() -> Any:
    """Return ``xformers.ops.fmha``, imported without its warnings about its extension, which is not used here."""
    logger = logging.getLogger("xformers")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        return importlib.import_module("xformers.ops.fmha")
    finally:
        logger.setLevel(level)


def refusal(fmha: Any, inputs: Any, *, needs_grad: bool) -> str | None:
    """Return why xformers has no kernel for these inputs, kernel by kernel in its own words; None if it has one.

    The inputs are the library's, with a mask of at least two blocks; ``needs_grad`` also requires a backward kernel.
    """
    with _torch_kernels_enabled(fmha):
        try:
            forward = fmha._dispatch_fw(inputs, needs_grad)
            if needs_grad:
                fmha._dispatch_bw(inputs, varlen_lse_packed=forward.VARLEN_LSE_PACKED)
        except NotImplementedError as error:
            return _reasons(str(error))
    return None


@contextmanager
def _torch_kernels_enabled(fmha: Any) -> Iterator[None]:
    """Let xformers use torch's kernels even if its own extension is not loaded.

    Kernels that torch does not have are still rejected, by separate checks of their presence and signature.
    """
    with _FLAG:
        before, fmha.common._built_with_cuda = fmha.common._built_with_cuda, True
        try:
            yield
        finally:
            fmha.common._built_with_cuda = before


def _reasons(message: str) -> str:
    """Return xformers' message on one line, without the repeated inputs."""
    reasons: dict[str, list[str]] = {}
    for line in message.splitlines():
        name, found, _ = line.partition("` is not supported because:")
        if found:
            reasons[name.strip("`")] = []
        elif reasons:
            reasons[list(reasons)[-1]].append(line.strip())
    return "; ".join(f"{name}: {', '.join(lines)}" for name, lines in reasons.items()) or one_line(message)


def aligned(width: int) -> int:
    """Return ``width`` rounded up to a multiple of ALIGNMENT."""
    return -(-width // ALIGNMENT) * ALIGNMENT
