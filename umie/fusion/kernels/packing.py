"""`packed`, and what ragged backends share: pack the real tokens and slots in a row, attend within blocks, and unpack.

Shapes: B batch, T queries, V slots, D model width, H heads, d head width; N and M are the numbers of packed tokens and
slots, taken from the examples that have both.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from umie.errors import UmieError
from umie.fusion.kernels import registry
from umie.fusion.kernels.base import Kernel, KernelCase, LayerInputs, add_product, split_heads
from umie.fusion.kernels.sdpa import Sdpa

NOT_COMPILED = "the number of packed tokens depends on the data, which a compiler cannot see"


@dataclass(frozen=True, eq=False)
class Packing:
    """The positions of packed tokens and slots in the padded batch.

    An example without a real token or without a real slot is left out: an empty block has no softmax.
    """

    tokens: Tensor  # [N], ascending positions among the B * T of the batch
    slots: Tensor  # [M], ascending positions among the B * V
    num_tokens: tuple[int, ...]  # of each packed example; on the host, as kernels for ragged batches require
    num_slots: tuple[int, ...]
    padded_tokens: tuple[int, int]  # (B, T)
    padded_slots: tuple[int, int]  # (B, V)

    @classmethod
    def of(cls, query_mask: Tensor, key_mask: Tensor) -> Packing:
        """Return the packing for the masks ``[B, T]`` and ``[B, V]``, True = real; synchronizes once."""
        device, (batch, num_queries), num_keys = query_mask.device, query_mask.shape, key_mask.shape[1]
        masks = torch.cat([query_mask, key_mask], dim=1).cpu()  # one copy gives all sizes
        queries, keys = masks[:, :num_queries], masks[:, num_queries:]
        packed = queries.any(dim=1) & keys.any(dim=1)
        tokens, slots = ((mask & packed[:, None]).flatten().nonzero()[:, 0].to(device) for mask in (queries, keys))
        num_tokens, num_slots = (tuple(mask[packed].sum(dim=1).tolist()) for mask in (queries, keys))
        return cls(tokens, slots, num_tokens, num_slots, (batch, num_queries), (batch, num_keys))

    def pack_tokens(self, states: Tensor) -> Tensor:
        """Return ``[N, ...]`` for ``[B, T, ...]``."""
        return _pack(states, self.tokens)

    def pack_slots(self, states: Tensor) -> Tensor:
        """Return ``[M, ...]`` for ``[B, V, ...]``."""
        return _pack(states, self.slots)

    def unpack_tokens(self, packed: Tensor, into: Tensor | None = None) -> Tensor:
        """Return ``[B, T, ...]`` for ``[N, ...]``; other positions come from ``into``, or are zeros without it."""
        return _unpack(packed, self.tokens, self.padded_tokens, into)

    def unpack_slots(self, packed: Tensor, into: Tensor | None = None) -> Tensor:
        """Return ``[B, V, ...]`` for ``[M, ...]``; other positions come from ``into``, or are zeros without it."""
        return _unpack(packed, self.slots, self.padded_slots, into)

    def per_slot(self, factors: Tensor) -> Tensor:
        """Return ``[M]`` for ``[B]``, at least in float32, so that a factor's gradient sums over slots unrounded."""
        wide = factors.to(torch.promote_types(factors.dtype, torch.float32))
        return self.pack_slots(wide[:, None].expand(self.padded_slots))

    def block_mask(self) -> Tensor:
        """Return bool ``[N, M]``, True where token and slot belong to the same example."""
        example_of_token = self.tokens // self.padded_tokens[1]
        return example_of_token[:, None] == self.slots // self.padded_slots[1]


class PackedKernel(Kernel, ABC):
    """A backend that attends within blocks of packed tokens and slots, and projects only real ones.

    It has no cost, because a case does not state how much of the batch is padding.
    """

    name: ClassVar[str]

    @abstractmethod
    def blocks(self, q: Tensor, k: Tensor, v: Tensor, packing: Packing, scale: float, dropout: float) -> Tensor:
        """Return block-diagonal attention ``[1, N, H, d]``, from each token over the slots of its own example.

        ``q`` is ``[1, N, H, d]``, ``k`` and ``v`` are ``[1, M, H, d]``; the packing has at least one example.
        """

    def attend(self, q: Tensor, k: Tensor, v: Tensor, *, key_mask: Tensor, scale: float, dropout: float) -> Tensor:
        """Return attention, as in ``Kernel.attend``; packs real slots, and all tokens of examples with slots."""
        self._refuse_to_compile()
        packing = Packing.of(_all_real(q), key_mask)
        q, k, v = (states[None] for states in (packing.pack_tokens(q), packing.pack_slots(k), packing.pack_slots(v)))
        return packing.unpack_tokens(self._attend_packed(q, k, v, packing, scale, dropout)[0])

    def layer(self, inputs: LayerInputs) -> Tensor:
        """Return attention with its projections, as in ``Kernel.layer``; other positions keep the residual."""
        self._refuse_to_compile()
        query_mask = _all_real(inputs.queries) if inputs.query_mask is None else inputs.query_mask
        packing = Packing.of(query_mask, inputs.key_mask)
        tokens, slots = packing.pack_tokens(inputs.queries)[None], packing.pack_slots(inputs.keys)[None]
        if inputs.norm is not None:
            tokens = inputs.norm(tokens)
        weights = inputs.weights
        q, k, v = (
            split_heads(F.linear(states, weight), inputs.num_heads)
            for states, weight in ((tokens, weights.query), (slots, weights.key), (slots, weights.value))
        )
        if inputs.gate is not None:
            v = (v * packing.per_slot(inputs.gate)[None, :, None, None]).to(v.dtype)
        mixed = self._attend_packed(q, k, v, packing, inputs.scale, inputs.dropout)[0]
        residual = None if inputs.residual is None else packing.pack_tokens(inputs.residual)
        return packing.unpack_tokens(add_product(residual, mixed.flatten(1), weights.output), into=inputs.residual)

    def _attend_packed(self, q: Tensor, k: Tensor, v: Tensor, packing: Packing, scale: float, dropout: float) -> Tensor:
        if not packing.num_tokens:
            return q + k + v  # all are empty; the sum gives each a gradient of zeros
        return self.blocks(q, k, v, packing, scale, dropout)

    def _refuse_to_compile(self) -> None:
        if torch.compiler.is_compiling():  # unsupported_reason is not called there
            raise UmieError(f"attention backend {self.name!r} cannot run here: {NOT_COMPILED}; use 'sdpa' or 'auto'")


@registry.register("packed")
class Packed(PackedKernel):
    """The whole layer without its padding; pays for its copies if much of the batch is padding.

    It projects only real tokens; between the projections torch's attention runs on the padded batch. Attention over
    the slots is a small part of a token's work (2 * V of 2 * V + 2 * D multiply-adds per unit of inner width; FLAN-T5
    base: 5%). Padding is therefore cheap there and expensive in the projections. It runs on every device and in every
    precision.
    """

    name = "packed"
    whole_layer_only = True

    def unsupported_reason(self, case: KernelCase) -> str | None:
        """Return a reason if there are no projections to save, or under a compiler."""
        return super().unsupported_reason(case) or (NOT_COMPILED if case.compiling else None)

    def blocks(self, q: Tensor, k: Tensor, v: Tensor, packing: Packing, scale: float, dropout: float) -> Tensor:
        """Return block-diagonal attention by padding q, k and v again."""
        key_mask = packing.unpack_slots(torch.ones_like(packing.slots)).bool()
        padded = packing.unpack_tokens(q[0]), packing.unpack_slots(k[0]), packing.unpack_slots(v[0])
        return packing.pack_tokens(Sdpa().attend(*padded, key_mask=key_mask, scale=scale, dropout=dropout))[None]


def blocks_reference(q: Tensor, k: Tensor, v: Tensor, packing: Packing, scale: float, dropout: float) -> Tensor:
    """Return block-diagonal attention from an explicit ``[N, M]`` mask: the reference for every ``blocks``."""
    logits = torch.einsum("bnhd,bmhd->bhnm", q, k) * scale
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    logits = logits.masked_fill(~packing.block_mask(), -torch.inf)
    weights = F.dropout(logits.softmax(dim=-1), dropout).to(v.dtype)
    return torch.einsum("bhnm,bmhd->bnhd", weights, v)


def _all_real(states: Tensor) -> Tensor:
    return states.new_ones(states.shape[:2], dtype=torch.bool)


def _pack(states: Tensor, positions: Tensor) -> Tensor:
    flat = states.flatten(0, 1)
    # positions ascend, so if none is left out the order is the same
    return flat if len(positions) == len(flat) else flat.index_select(0, positions)


def _unpack(packed: Tensor, positions: Tensor, padded: tuple[int, int], into: Tensor | None) -> Tensor:
    shape = (*padded, *packed.shape[1:])
    if len(positions) == padded[0] * padded[1]:
        return packed.view(shape)
    flat = packed.new_zeros(padded[0] * padded[1], *packed.shape[1:]) if into is None else into.flatten(0, 1)
    return flat.to(packed.dtype).index_copy(0, positions, packed).view(shape)
