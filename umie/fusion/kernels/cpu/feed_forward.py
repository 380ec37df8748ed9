"""The gated feed-forward layer of T5 v1.1, in slices of its inner width that fit the CPU's caches.

Shapes: D model width, F inner width.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from umie.fusion.kernels.conditions import autocast_dtype, needs_gradient

# Columns of the inner width per slice: for 1,024 tokens, 512 columns take 2 MiB in float32. With gradients each slice
# does twice as many products, and its memory is reused less often.
NUM_COLUMNS, NUM_COLUMNS_TRAINING = 512, 1024


def gated_feed_forward(
    states: Tensor,
    gate: Tensor,
    up: Tensor,
    down: Tensor,
    *,
    residual: Tensor | None = None,
    reuse_residual: bool = False,
) -> Tensor:
    """Return ``residual + Wo (gelu_tanh(W0 x) * W1 x)``; adding the residual costs no extra pass.

    The states x and the residual are ``[..., D]``, gate W0 and up W1 ``[F, D]``, and down Wo ``[D, F]``. With
    ``reuse_residual`` the result may overwrite ``residual``; this happens only when gradients are disabled.
    """
    weights = [gate, up, down]
    dtype = autocast_dtype(states)
    if dtype is not None:
        states, weights = states.to(dtype), [weight.to(dtype) for weight in weights]
    flat = states.reshape(-1, states.shape[-1])
    added = None if residual is None or residual.dtype != states.dtype else residual.reshape(-1, residual.shape[-1])
    with torch.autocast(states.device.type, enabled=False):
        if torch.is_grad_enabled():
            out: Tensor = _GatedFeedForward.apply(added, flat, *weights, needs_gradient(flat, *weights))
        else:
            gate, up, down = weights
            out = _accumulate(_start(added, flat, down, reuse_residual), flat, gate, up, down, None)
    out = out.view(*states.shape[:-1], out.shape[-1])
    return out if residual is None or added is not None else residual + out


def gated_feed_forward_reference(states: Tensor, gate: Tensor, up: Tensor, down: Tensor) -> Tensor:
    """Return ``Wo (gelu_tanh(W0 x) * W1 x)``; arguments as in ``gated_feed_forward``."""
    return F.linear(F.gelu(F.linear(states, gate), approximate="tanh") * F.linear(states, up), down)


class _GatedFeedForward(torch.autograd.Function):
    """Saves only the two inner products; the backward pass recomputes the activation and its product."""

    @staticmethod
    def forward(
        ctx: Any, added: Tensor | None, x: Tensor, gate: Tensor, up: Tensor, down: Tensor, save: bool
    ) -> Tensor:
        saved: list[Tensor] = []
        out = _accumulate(_start(added, x, down, False), x, gate, up, down, saved if save else None)
        if save:
            ctx.save_for_backward(x, gate, up, down, *saved)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        saved = ctx.saved_tensors  # read once: checkpointing recomputes them at each access
        if not saved:  # only the residual has a gradient
            return grad, None, None, None, None, None
        x, gate, up, down, *products = saved
        with torch.autocast(x.device.type, enabled=False):
            grads = _gradients(grad, x, gate, up, down, products, ctx.needs_input_grad[1:5])
        return grad if ctx.needs_input_grad[0] else None, *grads, None


def _start(added: Tensor | None, x: Tensor, down: Tensor, reuse: bool) -> Tensor:
    """Return the tensor that the products are accumulated into."""
    if added is None:
        return x.new_zeros(len(x), down.shape[0])
    return added if reuse else added.clone()


def _accumulate(out: Tensor, x: Tensor, gate: Tensor, up: Tensor, down: Tensor, saved: list[Tensor] | None) -> Tensor:
    """Add the layer's output for ``x`` to ``out`` in place, and append the inner products to ``saved``."""
    for columns in _slices(x, gate.shape[0], saved is not None):
        gated, lifted = x @ gate[columns].T, x @ up[columns].T
        if saved is None:
            inner = torch.ops.aten.gelu_(gated, approximate="tanh").mul_(lifted)
        else:
            saved += [gated, lifted]
            inner = F.gelu(gated, approximate="tanh").mul_(lifted)
        out.addmm_(inner, down[:, columns].T)
    return out


def _gradients(
    grad: Tensor, x: Tensor, gate: Tensor, up: Tensor, down: Tensor, saved: list[Tensor], needed: tuple[bool, ...]
) -> tuple[Tensor | None, ...]:
    """Return the gradients of ``x`` and the three weights; None for those that are not needed."""
    grad_x = torch.zeros_like(x) if needed[0] else None
    grad_gate, grad_up, grad_down = (
        torch.empty_like(weight) if need else None for weight, need in zip((gate, up, down), needed[1:4], strict=True)
    )
    for number, columns in enumerate(_slices(x, gate.shape[0], True)):
        gated, lifted = saved[2 * number], saved[2 * number + 1]
        active = F.gelu(gated, approximate="tanh")
        if grad_down is not None:
            grad_down[:, columns] = grad.T @ (active * lifted)
        grad_inner = grad @ down[:, columns]
        grad_gated = torch.ops.aten.gelu_backward(grad_inner * lifted, gated, approximate="tanh")
        grad_lifted = grad_inner.mul_(active)
        if grad_gate is not None:
            torch.mm(grad_gated.T, x, out=grad_gate[columns])
        if grad_up is not None:
            torch.mm(grad_lifted.T, x, out=grad_up[columns])
        if grad_x is not None:
            grad_x.addmm_(grad_gated, gate[columns]).addmm_(grad_lifted, up[columns])
    return grad_x, grad_gate, grad_up, grad_down


def _slices(x: Tensor, width: int, training: bool) -> list[slice]:
    """Split the inner width; 16-bit precision uses one slice, as each further slice would round the sum again."""
    size = NUM_COLUMNS_TRAINING if training else NUM_COLUMNS
    if x.device.type != "cpu" or x.element_size() <= 2:
        size = width
    return [slice(start, min(start + size, width)) for start in range(0, width, size)]
