"""RMSNorm on a CPU: one pass over the states, and one number per token saved for the gradient."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from umie.fusion.kernels.conditions import may_fuse


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """Return ``x / rms(x) * weight`` over the last dimension, for ``x`` in the dtype of ``weight``."""
    if x.device.type != "cpu" or not may_fuse(x):
        return rms_norm_reference(x, weight, eps)
    normed: Tensor = _RMSNorm.apply(x, weight, eps)
    return normed


def rms_norm_reference(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """Return the result of ``rms_norm``, computed by torch; one fused kernel on a GPU."""
    return F.rms_norm(x, x.shape[-1:], weight, eps)


class _RMSNorm(torch.autograd.Function):
    """Saves the reciprocal root mean square of each token instead of a normalized copy of the states."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        wide = torch.promote_types(x.dtype, torch.float32)
        norms = torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=wide)
        scale = norms.square_().mul_(1 / x.shape[-1]).add_(eps).rsqrt_()
        ctx.save_for_backward(x, weight, scale)
        normed: Tensor = (x * scale).mul_(weight)
        return normed.to(x.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, scale = ctx.saved_tensors
        normed = x * scale
        grad_weight = (
            (grad * normed).reshape(-1, x.shape[-1]).sum(0).to(weight.dtype) if ctx.needs_input_grad[1] else None
        )
        if not ctx.needs_input_grad[0]:
            return None, grad_weight, None
        grad = grad * weight
        along = torch.linalg.vecdot(grad.to(normed.dtype), normed).unsqueeze(-1) / x.shape[-1]
        return (grad - normed.mul_(along)).mul_(scale).to(x.dtype), grad_weight, None
