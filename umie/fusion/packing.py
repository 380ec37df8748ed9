"""Ragged batches without their padding: real tokens and slots in a row, attention within blocks, and back.

Shapes: B batch, T queries, V slots, D model width, H heads, d head width; N and M are the packed tokens and slots,
those of the examples that have both.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from umie.errors import UmieError
from umie.fusion.kernels.base import Kernel, KernelCase, Projections, add_product, split_heads

NOT_COMPILED = "the number of packed tokens depends on the data, which a compiler does not have"


@dataclass(frozen=True, eq=False)
class Packing:
    """Where the tokens and slots of a packed batch come from.

    An example without a real token or without a real slot is left out: a block of no length has no softmax.

    Args:
        tokens: ``[N]``, places among the B * T of the batch, ascending.
        slots: ``[M]``, places among the B * V, ascending.
        num_tokens: of each packed example, on the host as kernels for ragged batches want them.
        num_slots: likewise.
        padded_tokens: (B, T).
        padded_slots: (B, V).
    """

    tokens: Tensor
    slots: Tensor
    num_tokens: tuple[int, ...]
    num_slots: tuple[int, ...]
    padded_tokens: tuple[int, int]
    padded_slots: tuple[int, int]

    @classmethod
    def of(cls, query_mask: Tensor, key_mask: Tensor) -> Packing:
        """Return the packing of a batch; waits for the device, once.

        Args:
            query_mask: bool ``[B, T]``, True = real.
            key_mask: bool ``[B, V]``, True = real.
        """
        device, (batch, num_queries), num_keys = query_mask.device, query_mask.shape, key_mask.shape[1]
        masks = torch.cat([query_mask, key_mask], dim=1).cpu()  # all sizes follow from this one copy
        queries, keys = masks[:, :num_queries], masks[:, num_queries:]
        packed = queries.any(dim=1) & keys.any(dim=1)
        tokens, slots = ((mask & packed[:, None]).flatten().nonzero()[:, 0].to(device) for mask in (queries, keys))
        num_tokens, num_slots = (tuple(mask[packed].sum(dim=1).tolist()) for mask in (queries, keys))
        return cls(tokens, slots, num_tokens, num_slots, (batch, num_queries), (batch, num_keys))

    def pack_tokens(self, states: Tensor) -> Tensor:
        """Return ``[N, ...]`` of ``[B, T, ...]``."""
        return _pack(states, self.tokens)

    def pack_slots(self, states: Tensor) -> Tensor:
        """Return ``[M, ...]`` of ``[B, V, ...]``."""
        return _pack(states, self.slots)

    def unpack_tokens(self, packed: Tensor, into: Tensor | None = None) -> Tensor:
        """Return ``[B, T, ...]`` of ``[N, ...]``; the other places keep what ``into`` has, or are zeros."""
        return _unpack(packed, self.tokens, self.padded_tokens, into)

    def unpack_slots(self, packed: Tensor, into: Tensor | None = None) -> Tensor:
        """Return ``[B, V, ...]`` of ``[M, ...]``; the other places keep what ``into`` has, or are zeros."""
        return _unpack(packed, self.slots, self.padded_slots, into)

    def per_slot(self, factors: Tensor) -> Tensor:
        """Return ``[M]`` of ``[B]``, in float32 at least: a factor's gradient sums over slots, unrounded."""
        wide = factors.to(torch.promote_types(factors.dtype, torch.float32))
        return self.pack_slots(wide[:, None].expand(self.padded_slots))

    def block_mask(self) -> Tensor:
        """Return bool ``[N, M]``, True where token and slot are of one example."""
        example_of_token = self.tokens // self.padded_tokens[1]
        return example_of_token[:, None] == self.slots // self.padded_slots[1]


class PackedKernel(Kernel):
    """A backend that attends within blocks of packed tokens and slots; projections of real tokens alone."""

    name: ClassVar[str]

    @abstractmethod
    def blocks(self, q: Tensor, k: Tensor, v: Tensor, packing: Packing, scale: float, dropout: float) -> Tensor:
        """Return block-diagonal attention: each token over the slots of its own example.

        Args:
            q: ``[1, N, H, d]``.
            k: ``[1, M, H, d]``.
            v: ``[1, M, H, d]``.
            packing: of these tokens and slots; one example at least.
            scale: factor on the logits.
            dropout: share of attention weights dropped.

        Returns:
            ``[1, N, H, d]``.
        """

    def cost(self, case: KernelCase) -> float | None:
        """Return None: a case does not say how much of it is padding."""
        return None

    def attend(self, q: Tensor, k: Tensor, v: Tensor, *, key_mask: Tensor, scale: float, dropout: float) -> Tensor:
        """Return attention; see the contract. Slots are packed, and all tokens of examples that have slots."""
        self._refuse_to_compile()
        packing = Packing.of(_all_real(q), key_mask)
        q, k, v = (states[None] for states in (packing.pack_tokens(q), packing.pack_slots(k), packing.pack_slots(v)))
        return packing.unpack_tokens(self._attend_packed(q, k, v, packing, scale, dropout)[0])

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
        norm: Callable[[Tensor], Tensor] | None = None,
    ) -> Tensor:
        """Return attention with its projections; see the contract. What is not packed comes out as the residual."""
        self._refuse_to_compile()
        packing = Packing.of(_all_real(queries) if query_mask is None else query_mask, key_mask)
        tokens, slots = packing.pack_tokens(queries)[None], packing.pack_slots(keys)[None]
        if norm is not None:
            tokens = norm(tokens)
        q, k, v = (
            split_heads(F.linear(states, weight), num_heads)
            for states, weight in ((tokens, weights.query), (slots, weights.key), (slots, weights.value))
        )
        if gate is not None:
            v = (v * packing.per_slot(gate)[None, :, None, None]).to(v.dtype)
        mixed = self._attend_packed(q, k, v, packing, scale, dropout)[0]
        added = None if residual is None else packing.pack_tokens(residual)
        return packing.unpack_tokens(add_product(added, mixed.flatten(1), weights.output), into=residual)

    def _attend_packed(self, q: Tensor, k: Tensor, v: Tensor, packing: Packing, scale: float, dropout: float) -> Tensor:
        if not packing.num_tokens:
            return q + k + v  # all empty: the sum keeps each of them in the graph, with a gradient of zeros
        return self.blocks(q, k, v, packing, scale, dropout)

    def _refuse_to_compile(self) -> None:
        if torch.compiler.is_compiling():  # nobody asks unsupported_reason there
            raise UmieError(f"attention backend {self.name!r} cannot run here: {NOT_COMPILED}; give 'sdpa', or 'auto'")


def plain_blocks(q: Tensor, k: Tensor, v: Tensor, packing: Packing, scale: float, dropout: float) -> Tensor:
    """Return block-diagonal attention with its mask written out, ``[N, M]``: the twin of every ``blocks``."""
    logits = torch.einsum("bnhd,bmhd->bhnm", q, k) * scale
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    logits = logits.masked_fill(~packing.block_mask(), -torch.inf)
    weights = F.dropout(logits.softmax(dim=-1), dropout).to(v.dtype)
    return torch.einsum("bhnm,bmhd->bnhd", weights, v)


def _all_real(states: Tensor) -> Tensor:
    return states.new_ones(states.shape[:2], dtype=torch.bool)


def _pack(states: Tensor, places: Tensor) -> Tensor:
    flat = states.flatten(0, 1)
    return flat if len(places) == len(flat) else flat.index_select(0, places)  # ascending: all of them, in order


def _unpack(packed: Tensor, places: Tensor, padded: tuple[int, int], into: Tensor | None) -> Tensor:
    shape = (*padded, *packed.shape[1:])
    if len(places) == padded[0] * padded[1]:
        return packed.view(shape)
    flat = packed.new_zeros(padded[0] * padded[1], *packed.shape[1:]) if into is None else into.flatten(0, 1)
    return flat.to(packed.dtype).index_copy(0, places, packed).view(shape)
