"""`packed`: projections of real tokens only, and torch's attention on the padded batch between them.

Attention over the slots is a small part of a token's work (2 * V of 2 * V + 2 * D multiply-adds per unit of inner
width; FLAN-T5 base: 5 %). Padding is therefore cheap there and expensive in the projections. This backend runs on every
device and in every precision.
"""

from __future__ import annotations

import torch
from torch import Tensor

from umie.fusion.kernels import registry
from umie.fusion.kernels.base import KernelCase
from umie.fusion.kernels.packing import NOT_COMPILED, PackedKernel, Packing
from umie.fusion.kernels.sdpa import Sdpa


@registry.register("packed")
class Packed(PackedKernel):
    """The whole layer without its padding; pays for its copies if much of the batch is padding."""

    name = "packed"
    whole_layer_only = True

    def unsupported_reason(self, case: KernelCase) -> str | None:
        """Return a reason if there are no projections to save, or under a compiler."""
        if case.d_model is None:
            return "it needs plain projections: without adapters, quantization, or hooks"
        return NOT_COMPILED if case.compiling else None

    def blocks(self, q: Tensor, k: Tensor, v: Tensor, packing: Packing, scale: float, dropout: float) -> Tensor:
        """Return block-diagonal attention by padding q, k and v again."""
        key_mask = packing.unpack_slots(torch.ones_like(packing.slots)).bool()
        padded = packing.unpack_tokens(q[0]), packing.unpack_slots(k[0]), packing.unpack_slots(v[0])
        return packing.pack_tokens(Sdpa().attend(*padded, key_mask=key_mask, scale=scale, dropout=dropout))[None]
