"""T5's decoder step by step, with a different number of tokens for each row of a batch.

transformers' own loop feeds the same number to all rows, so it cannot feed the known tokens of a single row at once.
The weights are T5's; tests compare the results with transformers' decoder.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from umie.types import FusedStates


class T5Steps:
    """Cached decoding of a batch whose rows have different lengths.

    A row's keys and values are stored at its own positions, so rows neither wait for each other nor have gaps.

    Args:
        seq2seq: transformers' T5.
        fused: the states that the decoder attends over.
    """

    def __init__(self, seq2seq: Any, fused: FusedStates) -> None:
        self._seq2seq = seq2seq
        self._blocks = seq2seq.decoder.block
        num_rows = len(fused.states)
        device, dtype = fused.states.device, fused.states.dtype
        self._lengths = torch.zeros(num_rows, dtype=torch.long, device=device)
        self._lowest = torch.finfo(dtype).min
        self._cross_bias = torch.where(fused.mask, 0.0, self._lowest).to(dtype)[:, None, None, :]
        self._cross = []
        self._own: list[tuple[Tensor, Tensor]] = []
        for block in self._blocks:
            attention = block.layer[1].EncDecAttention
            projected = [self._split(layer(fused.states)).transpose(1, 2) for layer in (attention.k, attention.v)]
            self._cross.append(tuple(projected))
            empty = fused.states.new_zeros(num_rows, 0, attention.n_heads, attention.key_value_proj_dim)
            self._own.append((empty, empty))
        self._bias = fused.states.new_zeros(0, self._blocks[0].layer[0].SelfAttention.n_heads)

    def feed(self, tokens: Sequence[Sequence[int]], candidates: Tensor | None = None) -> Tensor:
        """Feed tokens to each row, and return the logits after the last token of each row that got any.

        Projections and feed-forward layers process the tokens of all rows at once, without padding.

        Args:
            tokens: the tokens of each row, possibly none.
            candidates: the tokens ``[N]`` to compute logits for; None for the whole vocabulary. The output head is a
                large part of a step: two fifths of the weights that FLAN-T5 small uses in it.

        Returns:
            Logits ``[A, N]`` for the A rows that got tokens.
        """
        device = self._lengths.device
        counts = torch.tensor([len(row) for row in tokens], device=device)
        flat = torch.tensor([token for row in tokens for token in row], device=device)  # [M]
        rows = torch.repeat_interleave(torch.arange(len(tokens), device=device), counts)
        offsets = torch.arange(len(flat), device=device) - (counts.cumsum(0) - counts)[rows]
        positions = self._lengths[rows] + offsets
        num_keys = int(positions.max()) + 1
        self._grow(num_keys)
        longest = int(counts.max())
        padded = self._lengths[:, None] + torch.arange(longest, device=device)  # [B, L]
        distances = padded[:, :, None] - torch.arange(num_keys, device=device)  # [B, L, K]
        bias = self._bias[distances.clamp(0, num_keys - 1)].masked_fill((distances < 0)[..., None], self._lowest)
        bias = bias.permute(0, 3, 1, 2)  # [B, H, L, K]
        states = self._seq2seq.shared(flat)  # [M, D]
        for block, (keys, values), cross in zip(self._blocks, self._own, self._cross, strict=True):
            layer = block.layer[0]
            attention = layer.SelfAttention
            normed = layer.layer_norm(states)
            keys[rows, positions] = self._split(attention.k(normed))
            values[rows, positions] = self._split(attention.v(normed))
            own = keys[:, :num_keys].transpose(1, 2), values[:, :num_keys].transpose(1, 2)
            states = states + self._attend(attention, normed, own, bias, rows, offsets)
            layer = block.layer[1]
            attention = layer.EncDecAttention
            normed = layer.layer_norm(states)
            states = states + self._attend(attention, normed, cross, self._cross_bias, rows, offsets)
            states = block.layer[2](states)
        self._lengths = self._lengths + counts
        last = self._seq2seq.decoder.final_layer_norm(states[counts[counts > 0].cumsum(0) - 1])
        if getattr(self._seq2seq.config, "scale_decoder_outputs", False):  # mT5 does not have this option
            last = last * self._seq2seq.model_dim**-0.5
        head: Tensor = self._seq2seq.lm_head.weight
        return F.linear(last, head if candidates is None else head[candidates.to(head.device)])

    def keep(self, rows: Sequence[int]) -> None:
        """Continue with only some of the rows."""
        chosen = torch.tensor(list(rows), dtype=torch.long, device=self._lengths.device)
        self._lengths = self._lengths[chosen]
        self._cross_bias = self._cross_bias[chosen]
        self._cross = [tuple(tensor[chosen] for tensor in pair) for pair in self._cross]
        self._own = [(keys[chosen], values[chosen]) for keys, values in self._own]

    def _grow(self, num_keys: int) -> None:
        """Allocate at least this many positions."""
        capacity = self._bias.shape[0]
        if num_keys <= capacity:
            return
        capacity = max(num_keys, 2 * capacity, 16)
        self._own = [(_padded_to(keys, capacity), _padded_to(values, capacity)) for keys, values in self._own]
        attention = self._blocks[0].layer[0].SelfAttention
        buckets = attention._relative_position_bucket(
            -torch.arange(capacity, device=self._lengths.device),
            bidirectional=False,
            num_buckets=attention.relative_attention_num_buckets,
            max_distance=attention.relative_attention_max_distance,
        )
        self._bias = attention.relative_attention_bias(buckets)

    def _attend(
        self, attention: Any, normed: Tensor, kept: tuple[Tensor, ...], bias: Tensor, rows: Tensor, offsets: Tensor
    ) -> Tensor:
        """Attend over keys and values ``[B, H, K, d]``; the queries ``[M, D]`` are padded to rows and back."""
        queries = self._split(attention.q(normed))
        padded = queries.new_zeros(len(kept[0]), int(offsets.max()) + 1, *queries.shape[1:])
        padded[rows, offsets] = queries
        attended = F.scaled_dot_product_attention(padded.transpose(1, 2), kept[0], kept[1], attn_mask=bias, scale=1.0)
        output: Tensor = attention.o(attended.transpose(1, 2)[rows, offsets].flatten(1))
        return output

    def _split(self, projected: Tensor) -> Tensor:
        """Return ``[..., H * d]`` as ``[..., H, d]``."""
        attention = self._blocks[0].layer[0].SelfAttention
        return projected.view(*projected.shape[:-1], attention.n_heads, attention.key_value_proj_dim)


def _padded_to(kept: Tensor, capacity: int) -> Tensor:
    return F.pad(kept, (0, 0, 0, 0, 0, capacity - kept.shape[1]))
