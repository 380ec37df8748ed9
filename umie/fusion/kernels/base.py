"""The contract of an attention backend: when it can run, what it costs, and its two forms.

Shapes: B batch, T queries, V slots, D model width, H heads, d head width, I = H * d.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from umie.fusion.linears import autocast_dtype


@dataclass(frozen=True, kw_only=True)
class KernelCase:
    """What a backend is chosen by.

    Args:
        device: ``cpu``, ``cuda``, ...
        dtype: of queries, keys and values as the products see them (under autocast: its dtype).
        batch: B.
        num_queries: T.
        num_keys: V.
        num_heads: H.
        head_dim: d.
        d_model: D; None for attention alone, without projections.
        needs_grad: gradients will be asked for.
        dropout: share of attention weights dropped.
        compiling: under ``torch.compile`` or ``torch.export``.
    """

    device: str
    dtype: torch.dtype
    batch: int
    num_queries: int
    num_keys: int
    num_heads: int
    head_dim: int
    d_model: int | None = None
    needs_grad: bool = False
    dropout: float = 0.0
    compiling: bool = False


@dataclass(frozen=True)
class Projections:
    """The weights of an attention layer as ``nn.Linear`` keeps them.

    Args:
        query: ``[I, D]``.
        key: ``[I, D]``.
        value: ``[I, D]``.
        output: ``[D, I]``.
    """

    query: Tensor
    key: Tensor
    value: Tensor
    output: Tensor


class Kernel(ABC):
    """One way of computing masked multi-head attention; it keeps no state.

    A backend implements ``attend``, or overrides ``layer`` as well (or, where it is a form of the whole layer, alone).
    Both give zeros where an example has no key, exactly, and zero gradients there.
    """

    whole_layer_only: bool = False

    @abstractmethod
    def unsupported_reason(self, case: KernelCase) -> str | None:
        """Return the reason why this backend cannot run the case, as a library gives it; None where it can."""

    @abstractmethod
    def cost(self, case: KernelCase) -> float | None:
        """Return the expected cost in multiplications, each addition with them, at the rate of large matrix products.

        What runs at a lower rate counts for more.

        ``auto`` takes the backend that expects the least. None: never taken by ``auto``, only by name.
        """

    def attend(self, q: Tensor, k: Tensor, v: Tensor, *, key_mask: Tensor, scale: float, dropout: float) -> Tensor:
        """Return attention without projections.

        Args:
            q: ``[B, T, H, d]``.
            k: ``[B, V, H, d]``.
            v: ``[B, V, H, d]``.
            key_mask: bool ``[B, V]``, True = real.
            scale: factor on the logits.
            dropout: share of attention weights dropped, the rest scaled up.

        Returns:
            ``[B, T, H, d]`` in the dtype of ``q``.
        """
        raise NotImplementedError

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
        """Return attention with its projections, ``residual + gate * MHA(queries -> keys)``.

        By default: project, ``attend``, project.

        Args:
            queries: ``[B, T, D]``.
            keys: ``[B, V, D]``, which give the values as well.
            weights: the four projections.
            num_heads: H.
            key_mask: bool ``[B, V]``, True = real.
            query_mask: bool ``[B, T]``, True = real; what stands at the others is not read, so that a backend
                may skip them. None: all are real.
            scale: factor on the logits.
            dropout: share of attention weights dropped.
            gate: ``[B]``, a factor for each example; None for 1. It scales the values, which are fewer than the
                tokens, and commutes with all that follows them.
            residual: ``[B, T, D]``, added; None for nothing.
            norm: applied to the queries, token by token, so that a backend may do it where it reads them.

        Returns:
            ``[B, T, D]``; finite, but otherwise unspecified, where ``query_mask`` is False. The residual itself,
            exactly, where an example has no key.
        """
        if norm is not None:
            queries = norm(queries)
        q, k, v = (
            split_heads(F.linear(states, weight), num_heads)
            for states, weight in ((queries, weights.query), (keys, weights.key), (keys, weights.value))
        )
        if gate is not None:
            v = v * gate[:, None, None, None].to(v.dtype)
        mixed = self.attend(q, k, v, key_mask=key_mask, scale=scale, dropout=dropout)
        return add_product(residual, mixed.flatten(2), weights.output)


def split_heads(states: Tensor, num_heads: int) -> Tensor:
    """Return ``[B, N, H, d]`` for ``[B, N, H * d]``."""
    return rearrange(states, "b n (h d) -> b n h d", h=num_heads)


def add_product(added: Tensor | None, states: Tensor, weight: Tensor) -> Tensor:
    """Return ``added + states @ weight.T``; one matrix product does both where precision and mode allow.

    Args:
        added: ``[..., M]``, or None for nothing.
        states: ``[..., N]``.
        weight: ``[M, N]``.
    """
    if added is None:
        return F.linear(states, weight)
    # Under autocast addmm would bring what is added into the low precision as well; a compiler fuses the two itself.
    if added.dtype != states.dtype or autocast_dtype(states) is not None or torch.compiler.is_compiling():
        return added + F.linear(states, weight)
    return torch.addmm(added.flatten(0, -2), states.flatten(0, -2), weight.T).view_as(added)
