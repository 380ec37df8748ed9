"""RMSNorm: T5's norm, with one pass over the states on a CPU and one number a token kept for its gradient."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from umie.fusion.linears import may_fuse


class RMSNorm(nn.RMSNorm):
    """Root-mean-square norm in the precision of its weights, which under autocast is not that of its input."""

    eps: float

    def __init__(self, d_model: int) -> None:
        super().__init__(d_model, eps=1e-6)

    def forward(self, x: Tensor) -> Tensor:
        """Normalize the last dimension."""
        dtype = x.dtype
        x = x.to(self.weight.dtype)
        if x.device.type != "cpu" or not may_fuse(x):  # elsewhere torch's own is one kernel
            own: Tensor = torch.nn.functional.rms_norm(x, x.shape[-1:], self.weight, self.eps)
            return own.to(dtype)
        normed: Tensor = _RmsNorm.apply(x, self.weight, self.eps)
        return normed.to(dtype)


class _RmsNorm(torch.autograd.Function):
    """Keeps the reciprocal root of each token, and no normed copy of the states."""

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
