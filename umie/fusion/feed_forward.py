"""The gated feed-forward layer of T5 v1.1, in slices of its inner width that stay in the caches of a CPU."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from umie.fusion.linears import are_plain, autocast_dtype, keeps, may_fuse

# Columns of the inner width at a time: 1,024 tokens of 512 are 2 MiB in float32. With gradients there are twice as many
# products on each, and memory is used again less often.
NUM_COLUMNS, NUM_COLUMNS_TRAINING = 512, 1024


class GatedFeedForward(nn.Module):
    """The feed-forward layer of T5 v1.1: ``Wo (gelu_tanh(W0 x) * W1 x)``, without biases."""

    def __init__(self, d_model: int, d_ff: int) -> None:
        super().__init__()
        self.gate = nn.Linear(d_model, d_ff, bias=False)
        self.up = nn.Linear(d_model, d_ff, bias=False)
        self.down = nn.Linear(d_ff, d_model, bias=False)
        for layer in (self.gate, self.up, self.down):
            nn.init.normal_(layer.weight, std=layer.in_features**-0.5)

    def forward(self, states: Tensor) -> Tensor:
        """Map ``[..., D]`` to ``[..., D]``."""
        return self.add_to(None, states)

    def add_to(self, added: Tensor | None, states: Tensor, *, in_place: bool = False) -> Tensor:
        """Return ``added + forward(states)``, both ``[..., D]``; the sum costs nothing of its own.

        Args:
            added: ``[..., D]``; None for nothing.
            states: ``[..., D]``.
            in_place: nobody needs ``added`` afterwards: it may become the result. Heeded without gradients alone.
        """
        if not may_fuse(states) or not are_plain(self.gate, self.up, self.down):
            result = self.plain(states)
            return result if added is None else added + result
        weights: list[Tensor] = [self.gate.weight, self.up.weight, self.down.weight]
        dtype = autocast_dtype(states)
        if dtype is not None:
            states, weights = states.to(dtype), [weight.to(dtype) for weight in weights]
        flat = states.reshape(-1, states.shape[-1])
        inside = None if added is None or added.dtype != states.dtype else added.reshape(-1, added.shape[-1])
        with torch.autocast(states.device.type, enabled=False):
            if torch.is_grad_enabled():
                out: Tensor = _GatedFeedForward.apply(inside, flat, *weights, keeps(flat, *weights))
            else:
                gate, up, down = weights
                out = _accumulate(_start(inside, flat, down, in_place), flat, gate, up, down, None)
        out = out.view(*states.shape[:-1], out.shape[-1])
        return out if added is None or inside is not None else added + out

    def plain(self, states: Tensor) -> Tensor:
        """Do as ``forward`` does, in one line: its twin, and what a compiler is given."""
        result: Tensor = self.down(F.gelu(self.gate(states), approximate="tanh") * self.up(states))
        return result


class _GatedFeedForward(torch.autograd.Function):
    """Keeps the two inner products alone: their activation and its product are made anew for the gradient."""

    @staticmethod
    def forward(
        ctx: Any, added: Tensor | None, x: Tensor, gate: Tensor, up: Tensor, down: Tensor, keep: bool
    ) -> Tensor:
        kept: list[Tensor] = []
        out = _accumulate(_start(added, x, down, False), x, gate, up, down, kept if keep else None)
        if keep:
            ctx.save_for_backward(x, gate, up, down, *kept)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        saved = ctx.saved_tensors  # once: checkpointing makes them anew at each look
        if not saved:  # what is added alone has a gradient
            return grad, None, None, None, None, None
        x, gate, up, down, *kept = saved
        with torch.autocast(x.device.type, enabled=False):
            grads = _gradients(grad, x, gate, up, down, kept, ctx.needs_input_grad[1:5])
        return grad if ctx.needs_input_grad[0] else None, *grads, None


def _start(added: Tensor | None, x: Tensor, down: Tensor, in_place: bool) -> Tensor:
    """Return what the products are added to."""
    if added is None:
        return x.new_zeros(len(x), down.shape[0])
    return added if in_place else added.clone()


def _accumulate(out: Tensor, x: Tensor, gate: Tensor, up: Tensor, down: Tensor, kept: list[Tensor] | None) -> Tensor:
    """Add the layer of ``x`` to ``out``, in place, and put the inner products into ``kept``."""
    for columns in _slices(x, gate.shape[0], kept is not None):
        gated, lifted = x @ gate[columns].T, x @ up[columns].T
        if kept is None:
            inner = torch.ops.aten.gelu_(gated, approximate="tanh").mul_(lifted)
        else:
            kept += [gated, lifted]
            inner = F.gelu(gated, approximate="tanh").mul_(lifted)
        out.addmm_(inner, down[:, columns].T)
    return out


def _gradients(
    grad: Tensor, x: Tensor, gate: Tensor, up: Tensor, down: Tensor, kept: list[Tensor], wanted: tuple[bool, ...]
) -> tuple[Tensor | None, ...]:
    """Return the gradients of ``x`` and of the three weights, those that are wanted."""
    grad_x = torch.zeros_like(x) if wanted[0] else None
    grads = [
        torch.empty_like(weight) if asked else None for weight, asked in zip((gate, up, down), wanted[1:4], strict=True)
    ]
    grad_gate, grad_up, grad_down = grads
    for number, columns in enumerate(_slices(x, gate.shape[0], True)):
        gated, lifted = kept[2 * number], kept[2 * number + 1]
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
    """Slice the inner width; not in 16 bits, where sums over slices would be rounded once for each."""
    size = NUM_COLUMNS_TRAINING if training else NUM_COLUMNS
    if x.device.type != "cpu" or x.element_size() <= 2:
        size = width
    return [slice(start, min(start + size, width)) for start in range(0, width, size)]
