"""`packed`: projections of real tokens alone, and torch's own attention on the padded batch between them.

Of a token's multiplications those with the slots are few (2 * V of 2 * V + 2 * D a head width; FLAN-T5 base: 5 %), so
that padding costs little there, and much in the projections. It runs on every device and in every precision.
"""

from __future__ import annotations

import torch
from torch import Tensor

from umie.fusion.kernels import registry
from umie.fusion.kernels.base import KernelCase
from umie.fusion.kernels.sdpa import Sdpa
from umie.fusion.packing import NOT_COMPILED, PackedKernel, Packing


@registry.register("packed")
class Packed(PackedKernel):
    """The whole layer without its padding; worth its copies where much of the batch is padding."""

    name = "packed"
    whole_layer_only = True

    def unsupported_reason(self, case: KernelCase) -> str | None:
        """Return a reason where there are no projections to save, and under a compiler."""
        if case.d_model is None:
            return "it saves plain projections of padding: here are none, or some with an adapter or hooks"
        return NOT_COMPILED if case.compiling else None

    def blocks(self, q: Tensor, k: Tensor, v: Tensor, packing: Packing, scale: float, dropout: float) -> Tensor:
        """Return block-diagonal attention by padding q, k and v again; see the contract."""
        key_mask = packing.unpack_slots(torch.ones_like(packing.slots)).bool()
        padded = packing.unpack_tokens(q[0]), packing.unpack_slots(k[0]), packing.unpack_slots(v[0])
        return packing.pack_tokens(Sdpa().attend(*padded, key_mask=key_mask, scale=scale, dropout=dropout))[None]
