"""Masked multi-head attention over visual slots: one function, its backends, and the layer with its projections.

Shapes: B batch, T queries, V slots, D model width, H heads, d head width.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import torch
from torch import Tensor, nn

from umie.errors import UmieError, UnknownNameError
from umie.fusion.kernels import Kernel, KernelCase, Projections, registry
from umie.fusion.kernels.base import split_heads
from umie.fusion.kernels.reference import attention_weights
from umie.fusion.linears import are_plain, autocast_dtype

AUTO = "auto"


@dataclass(frozen=True)
class Explanation:
    """Which backend a case gets, and what stands for or against each.

    Args:
        case: what was asked about.
        chosen: the backend's name.
        reasons: for every backend one sentence.
    """

    case: KernelCase
    chosen: str
    reasons: Mapping[str, str]

    def __str__(self) -> str:
        lines = (f"{'*' if name == self.chosen else ' '} {name}: {reason}" for name, reason in self.reasons.items())
        return "\n".join(lines)


def attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    key_mask: Tensor,
    scale: float,
    dropout: float = 0.0,
    backend: str = AUTO,
) -> Tensor:
    """Return scaled dot-product attention; an example whose keys are all masked gives zeros.

    Args:
        q: ``[B, T, H, d]``.
        k: ``[B, V, H, d]``.
        v: ``[B, V, H, d]``.
        key_mask: bool ``[B, V]``, True = real.
        scale: factor on the logits; T5 has 1.
        dropout: share of attention weights dropped.
        backend: a registered name, or ``auto``.

    Returns:
        ``[B, T, H, d]``.

    Raises:
        UmieError: the backend cannot run here; the message holds the library's reason.
    """
    kernel = _kernel(backend, q, k, dropout, num_heads=q.shape[2], head_dim=q.shape[3], d_model=None)
    return kernel.attend(q, k, v, key_mask=key_mask, scale=scale, dropout=dropout)


def explain(case: KernelCase, backend: str = AUTO) -> Explanation:
    """Return which backend a case gets and why; ``print`` shows a line for each.

    Args:
        case: device, dtype and shape; see KernelCase.
        backend: a registered name, or ``auto``.

    Raises:
        UmieError: no backend has this name, or it cannot run the case.
    """
    check_backend(backend)
    costs, reasons = _contest(case), {}
    if backend != AUTO and (reason := _named(backend).unsupported_reason(case)) is not None:
        raise UmieError(f"attention backend {backend!r} cannot run here: {reason}; give another, or 'auto'")
    least = min(costs, key=lambda name: costs[name])
    for name in registry.names():
        if name in costs:
            note = " (the least)" if name == least else ""
            reasons[name] = f"expects the work of {costs[name] / 1e9:.4g} billion multiplications{note}"
        else:
            reason = _named(name).unsupported_reason(case)
            reasons[name] = "runs, by name only" if reason is None else f"cannot run: {reason}"
    return Explanation(case, least if backend == AUTO else backend, MappingProxyType(reasons))


def _contest(case: KernelCase) -> dict[str, float]:
    """Return what each backend costs that ``auto`` may take: it has a cost, and runs.

    Those that are taken by name only are not asked whether they run: their libraries may be heavy.
    """
    costs = {name: cost for name in registry.names() if (cost := _named(name).cost(case)) is not None}
    return {name: cost for name, cost in costs.items() if _named(name).unsupported_reason(case) is None}


@functools.lru_cache(maxsize=4096)
def _choose(case: KernelCase, backend: str) -> Kernel:
    if backend != AUTO:
        return _named(explain(case, backend).chosen)
    costs = _contest(case)
    return _named(min(costs, key=lambda name: costs[name]))


def _named(backend: str) -> Kernel:
    if backend not in _BUILT:
        _BUILT[backend] = registry.build(backend)
    return _BUILT[backend]


_BUILT: dict[str, Kernel] = {}  # not a cache by decorator: a compiler cannot look through one


def _kernel(
    backend: str, queries: Tensor, keys: Tensor, dropout: float, *, num_heads: int, head_dim: int, d_model: int | None
) -> Kernel:
    """Return the backend for these tensors, ``[B, T, ...]`` and ``[B, V, ...]``."""
    if torch.compiler.is_compiling():  # a compiler fuses sdpa itself, and must not trace the choice
        kernel = _named("sdpa" if backend == AUTO else backend)
        if kernel.whole_layer_only and d_model is None:
            raise UmieError(f"attention backend {backend!r} cannot run here: it needs plain projections; give 'sdpa'")
        return kernel
    case = KernelCase(
        device=queries.device.type,
        dtype=autocast_dtype(queries) or queries.dtype,
        batch=queries.shape[0],
        num_queries=queries.shape[1],
        num_keys=keys.shape[1],
        num_heads=num_heads,
        head_dim=head_dim,
        d_model=d_model,
        needs_grad=torch.is_grad_enabled() and (queries.requires_grad or keys.requires_grad or d_model is not None),
        dropout=dropout,
    )
    return _choose(case, backend)


class MultiHeadAttention(nn.Module):
    """Attention with projections and no bias, as in T5; H * d need not equal D.

    Args:
        d_model: width D of queries, keys and output.
        num_heads: H.
        head_dim: d; None takes D / H.
        scaled: divide the logits by sqrt(d); T5 does not.
        dropout: share of attention weights dropped while training.
        backend: how attention is computed: a registered name, or ``auto``.
    """

    def __init__(
        self,
        d_model: int,
        num_heads: int,
        head_dim: int | None,
        *,
        scaled: bool,
        dropout: float = 0.0,
        backend: str = AUTO,
    ) -> None:
        super().__init__()
        head_dim = head_width(d_model, num_heads, head_dim)
        inner = num_heads * head_dim
        self.num_heads = num_heads
        self.head_dim = head_dim
        self.scale = head_dim**-0.5 if scaled else 1.0
        self.dropout = dropout
        self.backend = backend
        self.query = nn.Linear(d_model, inner, bias=False)
        self.key = nn.Linear(d_model, inner, bias=False)
        self.value = nn.Linear(d_model, inner, bias=False)
        self.output = nn.Linear(inner, d_model, bias=False)
        self.reset_parameters(head_dim)
        check_backend(backend)

    def reset_parameters(self, head_dim: int) -> None:
        """Draw initial weights so that logits start with unit variance, with and without scaling."""
        d_model = self.query.in_features
        nn.init.normal_(self.query.weight, std=d_model**-0.5 * head_dim**-0.5 / self.scale)
        nn.init.normal_(self.key.weight, std=d_model**-0.5)
        nn.init.normal_(self.value.weight, std=d_model**-0.5)
        nn.init.normal_(self.output.weight, std=self.output.in_features**-0.5)

    def forward(
        self,
        queries: Tensor,
        keys: Tensor,
        key_mask: Tensor,
        *,
        query_mask: Tensor | None = None,
        gate: Tensor | None = None,
        residual: Tensor | None = None,
        norm: Callable[[Tensor], Tensor] | None = None,
        output_attention: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """Attend from ``queries [B, T, D]`` over ``keys [B, V, D]`` (which give the values as well).

        Args:
            queries: ``[B, T, D]``.
            keys: ``[B, V, D]``.
            key_mask: bool ``[B, V]``, True = real.
            query_mask: bool ``[B, T]``, True = real; a backend may skip the others.
            gate: ``[B]``, a factor on what is found; None for 1.
            residual: ``[B, T, D]``, added to it; None for nothing.
            norm: applied to the queries, token by token.
            output_attention: return the weights too.

        Returns:
            ``residual + gate * found``, ``[B, T, D]``, where nothing is found in an example without a key; and the
            weights ``[B, H, T, V]`` if asked for (before dropout).
        """
        dropout = self.dropout if self.training else 0.0
        plain = are_plain(self.query, self.key, self.value, self.output)
        kernel = _kernel(
            self.backend,
            queries,
            keys,
            dropout,
            num_heads=self.num_heads,
            head_dim=self.head_dim,
            d_model=self.query.in_features if plain else None,
        )
        if plain:
            found = kernel.layer(
                queries,
                keys,
                Projections(self.query.weight, self.key.weight, self.value.weight, self.output.weight),
                num_heads=self.num_heads,
                key_mask=key_mask,
                query_mask=query_mask,
                scale=self.scale,
                dropout=dropout,
                gate=gate,
                residual=residual,
                norm=norm,
            )
        else:
            queries, norm = (queries if norm is None else norm(queries)), None
            found = self._by_modules(kernel, queries, keys, key_mask, dropout, gate, residual)
        if not output_attention:
            return found, None
        return found, self.weights(queries if norm is None else norm(queries), keys, key_mask)

    def _by_modules(
        self,
        kernel: Kernel,
        queries: Tensor,
        keys: Tensor,
        key_mask: Tensor,
        dropout: float,
        gate: Tensor | None,
        residual: Tensor | None,
    ) -> Tensor:
        """Do as ``Kernel.layer`` does where a projection is more than its weight: an adapter, or one with hooks."""
        q, k, v = (
            split_heads(projected, self.num_heads)
            for projected in (self.query(queries), self.key(keys), self.value(keys))
        )
        mixed = kernel.attend(q, k, v, key_mask=key_mask, scale=self.scale, dropout=dropout)
        found: Tensor = self.output(mixed.flatten(2))
        if gate is not None:
            found = gate[:, None, None].to(found.dtype) * found
        return found if residual is None else residual + found

    def weights(self, queries: Tensor, keys: Tensor, key_mask: Tensor) -> Tensor:
        """Return the attention weights ``[B, H, T, V]``, without dropout; arguments as in ``forward``."""
        q, k = (split_heads(projected, self.num_heads) for projected in (self.query(queries), self.key(keys)))
        return attention_weights(q, k, key_mask=key_mask, scale=self.scale)


def check_backend(backend: object) -> None:
    """Raise UmieError, with the choices, unless ``backend`` is ``auto`` or a registered name."""
    if not isinstance(backend, str) or backend not in (AUTO, *registry.names()):
        raise UnknownNameError("attention backend", backend, [AUTO, *registry.names()])
    _named("sdpa" if backend == AUTO else backend)  # built before a compiler looks


def head_width(d_model: int, num_heads: int, head_dim: int | None) -> int:
    """Return ``head_dim``, or D / H where it is None.

    Raises:
        UmieError: ``head_dim`` is None and H does not divide D (flan-t5-small: 6 heads of 64 on 512).
    """
    if head_dim is not None:
        return head_dim
    if d_model % num_heads:
        raise UmieError(f"num_heads={num_heads} does not divide d_model={d_model}: give head_dim")
    return d_model // num_heads
