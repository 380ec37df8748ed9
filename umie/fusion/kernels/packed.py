"""`packed`: projections of real tokens alone, and torch's own attention on the padded batch between them.

Of a token's multiplications those with the slots are few (2 * V of 2 * V + 2 * D a head width; FLAN-T5 base: 5 %), so
that padding costs little there, and much in the projections. It runs on every device and in every precision.
"""

from __future__ import annotations

from torch import Tensor

from umie.fusion.kernels import registry
from umie.fusion.kernels.base import Case, Kernel, Projections
from umie.fusion.kernels.sdpa import Sdpa
from umie.fusion.packing import NOT_COMPILED, Packing, packed_layer, refuse_to_compile


@registry.register("packed")
class Packed(Kernel):
    """The whole layer without its padding; worth its copies where much of the batch is padding."""

    whole_layer_only = True

    def why_not(self, case: Case) -> str | None:
        """Return a reason where there are no projections to save, and under a compiler."""
        if case.d_model is None:
            return "it saves projections of padding: attention alone has none"
        return NOT_COMPILED if case.compiling else None

    def cost(self, case: Case) -> float | None:
        """Return None: a case does not say how much of it is padding."""
        return None

    def layer(
        self,
        queries: Tensor,
        keys: Tensor,
        weights: Projections,
        *,
        num_heads: int,
        key_mask: Tensor,
        query_mask: Tensor | None = None,
        scale: float,
        dropout: float = 0.0,
        gate: Tensor | None = None,
        residual: Tensor | None = None,
    ) -> Tensor:
        """Return attention with its projections; see the contract."""
        refuse_to_compile("packed")
        return packed_layer(
            queries,
            keys,
            weights,
            padded_blocks,
            num_heads=num_heads,
            key_mask=key_mask,
            query_mask=query_mask,
            scale=scale,
            dropout=dropout,
            gate=gate,
            residual=residual,
        )


def padded_blocks(q: Tensor, k: Tensor, v: Tensor, packing: Packing, scale: float, dropout: float) -> Tensor:
    """Return block-diagonal attention by padding q, k and v again; see BlockAttention."""
    key_mask = packing.unpack_slots(packing.slots.new_ones(len(packing.slots)).bool())
    padded = packing.unpack_tokens(q[0]), packing.unpack_slots(k[0]), packing.unpack_slots(v[0])
    return packing.pack_tokens(Sdpa().attend(*padded, key_mask=key_mask, scale=scale, dropout=dropout))[None]
