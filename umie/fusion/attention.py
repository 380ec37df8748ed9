"""Masked multi-head attention over visual slots: the function, the choice of backend, and the layer.

Shapes: B batch, T queries, V slots, D model width, H heads, d head width.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from umie.errors import UmieError, UnknownNameError
from umie.fusion.kernels import Kernel, KernelCase, LayerInputs, Projections, registry
from umie.fusion.kernels.base import add_gated, split_heads
from umie.fusion.kernels.conditions import autocast_dtype, without_padding
from umie.fusion.kernels.reference import attention_weights
from umie.linear import are_plain
from umie.types import bool_mask

AUTO = "auto"


@dataclass(frozen=True)
class Explanation:
    """The backend chosen for a case, and one sentence for or against each backend."""

    case: KernelCase
    chosen: str
    reasons: Mapping[str, str]

    def __str__(self) -> str:
        lines = (f"{'*' if name == self.chosen else ' '} {name}: {reason}" for name, reason in self.reasons.items())
        return "\n".join(lines)


def attention(
    q: Tensor, k: Tensor, v: Tensor, *, key_mask: Tensor, scale: float, dropout: float = 0.0, backend: str = AUTO
) -> Tensor:
    """Return scaled dot-product attention ``[B, T, H, d]``; zeros for an example whose keys are all masked.

    ``q`` is ``[B, T, H, d]``, ``k`` and ``v`` are ``[B, V, H, d]``, and ``key_mask`` is bool ``[B, V]``, True = real;
    the values of other keys change nothing.
    ``scale`` is a factor on the logits (T5 uses 1), ``dropout`` a probability on the attention weights, and ``backend``
    a registered name, or ``auto``.

    Raises:
        UmieError: the backend cannot run here; the message contains the library's reason. Or the mask has values other
            than 0 and 1.
    """
    key_mask = bool_mask("key_mask", key_mask)
    k, v = without_padding(k, key_mask), without_padding(v, key_mask)
    kernel = _kernel(backend, q, k, dropout, num_heads=q.shape[2], head_dim=q.shape[3], d_model=None)
    return kernel.attend(q, k, v, key_mask=key_mask, scale=scale, dropout=dropout)


def explain(case: KernelCase, backend: str = AUTO) -> Explanation:
    """Return the backend for a case and the reasons; ``print`` shows one line per backend.

    Raises:
        UmieError: the name is unknown, or this backend cannot run the case.
    """
    check_backend(backend)
    costs, reasons = _costs(case), {}
    if backend != AUTO and (reason := _named(backend).unsupported_reason(case)) is not None:
        raise UmieError(f"attention backend {backend!r} cannot run here: {reason}; use another backend or 'auto'")
    cheapest = min(costs, key=lambda name: costs[name])
    for name in registry.names():
        if name in costs:
            note = " (the least)" if name == cheapest else ""
            reasons[name] = f"expected cost: {costs[name] / 1e9:.4g} billion multiply-adds{note}"
        else:
            reason = _named(name).unsupported_reason(case)
            reasons[name] = "runs only if named" if reason is None else f"cannot run: {reason}"
    return Explanation(case, cheapest if backend == AUTO else backend, MappingProxyType(reasons))


def _costs(case: KernelCase) -> dict[str, float]:
    """Return the cost of each backend that ``auto`` may choose: it has a cost and can run the case.

    A backend without a cost is not asked whether it can run, because that may import a heavy library.
    """
    costs = {name: cost for name in registry.names() if (cost := _named(name).cost(case)) is not None}
    return {name: cost for name, cost in costs.items() if _named(name).unsupported_reason(case) is None}


@functools.lru_cache(maxsize=4096)
def _choose(case: KernelCase, backend: str) -> Kernel:
    if backend != AUTO:
        return _named(explain(case, backend).chosen)
    costs = _costs(case)
    return _named(min(costs, key=lambda name: costs[name]))


def _named(backend: str) -> Kernel:
    if backend not in _BUILT:
        _BUILT[backend] = registry.build(backend)
    return _BUILT[backend]


_BUILT: dict[str, Kernel] = {}  # a dict, because a compiler cannot trace functools.cache


def _kernel(
    backend: str, queries: Tensor, keys: Tensor, dropout: float, *, num_heads: int, head_dim: int, d_model: int | None
) -> Kernel:
    """Return the backend for queries ``[B, T, ...]`` and keys ``[B, V, ...]``."""
    if torch.compiler.is_compiling():  # a compiler fuses sdpa itself, and cannot trace the choice
        kernel = _named("sdpa" if backend == AUTO else backend)
        if kernel.whole_layer_only and d_model is None:
            raise UmieError(f"attention backend {backend!r} cannot run here: it needs plain projections; use 'sdpa'")
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
    """Attention with projections and without biases, as in T5; H * d may differ from D.

    Args:
        d_model: width D of queries, keys and output.
        num_heads: H.
        head_dim: d; defaults to D / H.
        scaled: divide the logits by sqrt(d); T5 does not.
        dropout: dropout probability on the attention weights.
        output_dropout: dropout probability on the output, before gate and residual.
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
        output_dropout: float = 0.0,
        backend: str = AUTO,
    ) -> None:
        super().__init__()
        head_dim = head_width(d_model, num_heads, head_dim)
        inner = num_heads * head_dim
        self.num_heads, self.head_dim, self.backend = num_heads, head_dim, backend
        self.scale = head_dim**-0.5 if scaled else 1.0
        self.dropout, self.output_dropout = dropout, output_dropout
        self.query = nn.Linear(d_model, inner, bias=False)
        self.key = nn.Linear(d_model, inner, bias=False)
        self.value = nn.Linear(d_model, inner, bias=False)
        self.output = nn.Linear(inner, d_model, bias=False)
        # these give the logits unit variance, with and without scaling
        nn.init.normal_(self.query.weight, std=d_model**-0.5 * head_dim**-0.5 / self.scale)
        nn.init.normal_(self.key.weight, std=d_model**-0.5)
        nn.init.normal_(self.value.weight, std=d_model**-0.5)
        nn.init.normal_(self.output.weight, std=inner**-0.5)
        check_backend(backend)

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
    ) -> Tensor:
        """Return ``residual + gate * MHA(norm(queries) -> keys)``, ``[B, T, D]``; arguments as in ``LayerInputs``.

        The result is exactly the residual for an example without a key. The values of masked keys change nothing.
        """
        key_mask = bool_mask("key_mask", key_mask)
        keys = without_padding(keys, key_mask)
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
        drops_output = self.training and self.output_dropout > 0
        added_gate, added_residual = (None, None) if drops_output else (gate, residual)
        attended: Tensor
        if plain:
            attended = kernel.layer(
                LayerInputs(
                    queries=queries,
                    keys=keys,
                    weights=Projections(self.query.weight, self.key.weight, self.value.weight, self.output.weight),
                    num_heads=self.num_heads,
                    key_mask=key_mask,
                    query_mask=query_mask,
                    scale=self.scale,
                    dropout=dropout,
                    gate=added_gate,
                    residual=added_residual,
                    norm=norm,
                )
            )
        else:  # a projection is more than its weight, such as an adapter
            queries = queries if norm is None else norm(queries)
            projected = self.query(queries), self.key(keys), self.value(keys)
            q, k, v = (split_heads(states, self.num_heads) for states in projected)
            mixed = kernel.attend(q, k, v, key_mask=key_mask, scale=self.scale, dropout=dropout)
            attended = self.output(mixed.flatten(2))
            if added_gate is not None:
                attended = added_gate[:, None, None].to(attended.dtype) * attended
            if added_residual is not None:
                attended = added_residual + attended
        if drops_output:
            return add_gated(residual, gate, F.dropout(attended, self.output_dropout))
        return attended

    def weights(self, queries: Tensor, keys: Tensor, key_mask: Tensor) -> Tensor:
        """Return the attention weights ``[B, H, T, V]`` without dropout, for queries that are already normalized."""
        q, k = (split_heads(projected, self.num_heads) for projected in (self.query(queries), self.key(keys)))
        return attention_weights(q, k, key_mask=key_mask, scale=self.scale)


def check_backend(backend: object) -> None:
    """Raise UnknownNameError unless ``backend`` is ``auto`` or a registered name."""
    if not isinstance(backend, str) or backend not in (AUTO, *registry.names()):
        raise UnknownNameError("attention backend", backend, [AUTO, *registry.names()])
    _named("sdpa" if backend == AUTO else backend)  # build it before a compiler traces the model


def head_width(d_model: int, num_heads: int, head_dim: int | None) -> int:
    """Return ``head_dim``, or D / H if it is None.

    Raises:
        UmieError: ``head_dim`` is None and H does not divide D (flan-t5-small: 6 heads of 64, width 512).
    """
    if head_dim is not None:
        return head_dim
    if d_model % num_heads:
        raise UmieError(f"num_heads={num_heads} does not divide d_model={d_model}: set head_dim")
    return d_model // num_heads
