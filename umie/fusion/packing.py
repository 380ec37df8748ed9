"""Ragged batches without their padding: real tokens and slots in a row, attention within blocks, and back.

Shapes: B batch, T queries, V slots, D model width, H heads, d head width; N and M are the packed tokens and slots,
those of the examples that have both.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from umie.errors import UmieError
from umie.fusion.kernels.base import Projections, add_product, split_heads


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
        masks = torch.cat([query_mask, key_mask], dim=1).cpu()  # all sizes follow from this one copy
        queries, keys = masks.split([query_mask.shape[1], key_mask.shape[1]], dim=1)
        packed = queries.any(dim=1) & keys.any(dim=1)
        queries, keys = queries & packed[:, None], keys & packed[:, None]
        return cls(
            *(mask.flatten().nonzero()[:, 0].to(query_mask.device, non_blocking=True) for mask in (queries, keys)),
            *(tuple(mask[packed].sum(dim=1).tolist()) for mask in (queries, keys)),
            padded_tokens=(queries.shape[0], queries.shape[1]),
            padded_slots=(keys.shape[0], keys.shape[1]),
        )

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

    def block_mask(self) -> Tensor:
        """Return bool ``[N, M]``, True where token and slot are of one example."""
        example_of_token = self.tokens // self.padded_tokens[1]
        return example_of_token[:, None] == self.slots // self.padded_slots[1]


BlockAttention = Callable[[Tensor, Tensor, Tensor, Packing, float, float], Tensor]
"""Takes q ``[1, N, H, d]``, k and v ``[1, M, H, d]``, their packing, scale and dropout; returns a tensor like q."""


def packed_attention(
    q: Tensor, k: Tensor, v: Tensor, packing: Packing, scale: float, dropout: float, blocks: BlockAttention
) -> Tensor:
    """Return attention of packed tokens to the slots of their own example.

    Args:
        q: ``[N, H, d]``.
        k: ``[M, H, d]``.
        v: ``[M, H, d]``.
        packing: of these tokens and slots.
        scale: factor on the logits.
        dropout: share of attention weights dropped.
        blocks: what computes it, never without any block.

    Returns:
        ``[N, H, d]``.
    """
    if not packing.num_tokens:
        return q + k + v  # all empty: the sum keeps each of them in the graph, with a gradient of zeros
    return blocks(q[None], k[None], v[None], packing, scale, dropout)[0]


def packed_layer(
    queries: Tensor,
    keys: Tensor,
    weights: Projections,
    blocks: BlockAttention,
    *,
    num_heads: int,
    key_mask: Tensor,
    query_mask: Tensor | None,
    scale: float,
    dropout: float,
    gate: Tensor | None,
    residual: Tensor | None,
) -> Tensor:
    """Return attention with its projections, computed for packed tokens and slots alone.

    Args:
        queries: ``[B, T, D]``.
        keys: ``[B, V, D]``.
        weights: the four projections.
        blocks: attention of the packed tokens to the packed slots.
        num_heads: H.
        key_mask: bool ``[B, V]``, True = real.
        query_mask: bool ``[B, T]``, True = real; None: all are.
        scale: factor on the logits.
        dropout: share of attention weights dropped.
        gate: ``[B]``, a factor for each example; None for 1.
        residual: ``[B, T, D]``, added; None for nothing.

    Returns:
        ``[B, T, D]``; at every token that is not packed the residual itself, or zeros.
    """
    packing = Packing.of(_all_real(queries) if query_mask is None else query_mask, key_mask)
    tokens, slots = packing.pack_tokens(queries), packing.pack_slots(keys)
    q, k, v = (
        split_heads(F.linear(states, weight), num_heads)
        for states, weight in ((tokens, weights.query), (slots, weights.key), (slots, weights.value))
    )
    if gate is not None:
        v = v * packing.pack_slots(gate[:, None].expand_as(key_mask))[:, None, None].to(v.dtype)
    mixed = packed_attention(q, k, v, packing, scale, dropout, blocks)
    added = None if residual is None else packing.pack_tokens(residual)
    return packing.unpack_tokens(add_product(added, mixed.flatten(1), weights.output), into=residual)


def attend_to_packed(
    q: Tensor, k: Tensor, v: Tensor, blocks: BlockAttention, *, key_mask: Tensor, scale: float, dropout: float
) -> Tensor:
    """Return attention without projections for ``[B, T, H, d]``: slots packed, and all tokens of their examples."""
    packing = Packing.of(_all_real(q), key_mask)
    packed = packing.pack_tokens(q), packing.pack_slots(k), packing.pack_slots(v)
    return packing.unpack_tokens(packed_attention(*packed, packing, scale, dropout, blocks))


def plain_blocks(q: Tensor, k: Tensor, v: Tensor, packing: Packing, scale: float, dropout: float) -> Tensor:
    """Return block-diagonal attention with its mask written out, ``[N, M]``: the twin of every BlockAttention."""
    logits = torch.einsum("bnhd,bmhd->bhnm", q, k) * scale
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    logits = logits.masked_fill(~packing.block_mask(), -torch.inf)
    weights = F.dropout(logits.softmax(dim=-1), dropout).to(v.dtype)
    return torch.einsum("bhnm,bmhd->bnhd", weights, v)


def refuse_to_compile(backend: str) -> None:
    """Raise UmieError under ``torch.compile`` or ``torch.export``: the size of a pack depends on the data."""
    if torch.compiler.is_compiling():
        raise UmieError(f"attention backend {backend!r} cannot run here: {NOT_COMPILED}; give 'sdpa', or 'auto'")


NOT_COMPILED = "the number of packed tokens depends on the data, which a compiler does not have"


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
