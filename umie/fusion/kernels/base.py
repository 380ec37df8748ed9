"""The contract of an attention backend: when it can run, its expected cost, and its two forms.

Shapes: B batch, T queries, V slots, D model width, H heads, d head width, I = H * d.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from umie.fusion.kernels.conditions import autocast_dtype


@dataclass(frozen=True, kw_only=True)
class KernelCase:
    """The properties of a call that decide which backend runs it."""

    device: str  # cpu, cuda, ...
    dtype: torch.dtype  # of queries, keys and values in the matrix products (under autocast: its dtype)
    batch: int
    num_queries: int
    num_keys: int
    num_heads: int
    head_dim: int
    d_model: int | None = None  # None for attention without projections
    needs_grad: bool = False
    dropout: float = 0.0  # probability on the attention weights
    compiling: bool = False  # under torch.compile or torch.export


@dataclass(frozen=True, eq=False)
class Projections:
    """The weights of an attention layer, in the layout of ``nn.Linear``: three ``[I, D]``, and output ``[D, I]``."""

    query: Tensor
    key: Tensor
    value: Tensor
    output: Tensor


@dataclass(frozen=True, eq=False, kw_only=True)
class LayerInputs:
    """The inputs of ``Kernel.layer``.

    The gate commutes with every step after the values, so backends scale the values, of which there are fewer than
    tokens. The norm acts on the queries token by token, so that a backend may apply it where it reads them.
    """

    queries: Tensor  # [B, T, D]
    keys: Tensor  # [B, V, D]; the values are computed from them too
    weights: Projections
    num_heads: int
    key_mask: Tensor  # bool [B, V], True = real
    query_mask: Tensor | None = None  # bool [B, T], True = real, None: all; a backend may skip the other queries
    scale: float  # factor on the logits
    dropout: float = 0.0  # probability on the attention weights
    gate: Tensor | None = None  # [B], a factor for each example; None for 1
    residual: Tensor | None = None  # [B, T, D], added to the result; None for nothing
    norm: Callable[[Tensor], Tensor] | None = None


class Kernel:
    """One stateless implementation of masked multi-head attention.

    A backend implements ``attend``. It may also override ``layer``; if it supports only the whole layer, it overrides
    only ``layer`` and sets ``whole_layer_only``. Both methods return exact zeros, with zero gradients, for an example
    without a key. By default it runs everywhere, but only when it is named.
    """

    whole_layer_only: bool = False

    def unsupported_reason(self, case: KernelCase) -> str | None:
        """Return why this backend cannot run the case, in the library's words; None if it can."""
        if self.whole_layer_only and case.d_model is None:
            return "it needs plain projections: without adapters, quantization, or hooks"
        return None

    def cost(self, case: KernelCase) -> float | None:
        """Return the expected cost, in multiply-adds at the rate of large matrix products.

        Work that runs at a lower rate counts for more. ``auto`` chooses the backend with the lowest cost. None means
        that the backend runs only when it is named.
        """
        return None

    def attend(self, q: Tensor, k: Tensor, v: Tensor, *, key_mask: Tensor, scale: float, dropout: float) -> Tensor:
        """Return attention without projections.

        Args:
            q: ``[B, T, H, d]``.
            k: ``[B, V, H, d]``.
            v: ``[B, V, H, d]``.
            key_mask: bool ``[B, V]``, True = real.
            scale: factor on the logits.
            dropout: dropout probability on the attention weights; the rest are scaled up.

        Returns:
            ``[B, T, H, d]`` in the dtype of ``q``.
        """
        raise NotImplementedError

    def layer(self, inputs: LayerInputs) -> Tensor:
        """Return attention with its projections, ``residual + gate * MHA(norm(queries) -> keys)``.

        The default projects, calls ``attend``, and projects the result.

        Returns:
            ``[B, T, D]``. Where ``query_mask`` is False the values are finite but unspecified. An example without a
            key returns exactly the residual.
        """
        queries = inputs.queries if inputs.norm is None else inputs.norm(inputs.queries)
        weights = inputs.weights
        q, k, v = (
            split_heads(F.linear(states, weight), inputs.num_heads)
            for states, weight in ((queries, weights.query), (inputs.keys, weights.key), (inputs.keys, weights.value))
        )
        if inputs.gate is not None:
            v = v * inputs.gate[:, None, None, None].to(v.dtype)
        mixed = self.attend(q, k, v, key_mask=inputs.key_mask, scale=inputs.scale, dropout=inputs.dropout)
        return add_product(inputs.residual, mixed.flatten(2), weights.output)


def split_heads(states: Tensor, num_heads: int) -> Tensor:
    """Return ``[B, N, H, d]`` for ``[B, N, H * d]``."""
    return rearrange(states, "b n (h d) -> b n h d", h=num_heads)


def add_product(residual: Tensor | None, states: Tensor, weight: Tensor) -> Tensor:
    """Return ``residual [..., M] + states [..., N] @ weight.T``, as one matrix product if precision and mode allow."""
    if residual is None:
        return F.linear(states, weight)
    # Under autocast addmm would round the residual to the low precision; a compiler fuses the two itself.
    if residual.dtype != states.dtype or autocast_dtype(states) is not None or torch.compiler.is_compiling():
        return residual + F.linear(states, weight)
    return torch.addmm(residual.flatten(0, -2), states.flatten(0, -2), weight.T).view_as(residual)


def add_gated(residual: Tensor | None, gate: Tensor | None, states: Tensor, *, reuse_states: bool = False) -> Tensor:
    """Return ``residual [B, T, D] + gate [B] * states [B, T, D]``; None is no residual, and a gate of 1.

    With ``reuse_states`` the result may overwrite ``states``; this happens only when gradients are disabled.
    """
    if gate is None:
        return states if residual is None else residual + states
    factor = gate[:, None, None]
    if residual is None:
        return factor * states
    may_write = reuse_states and not (torch.is_grad_enabled() or torch.compiler.is_compiling())
    if may_write and states.dtype == residual.dtype:
        return states.mul_(factor).add_(residual)
    return torch.addcmul(residual, factor, states)
