"""When a fused function may replace plain operations, in which precision, and whether it must save for gradients."""

from __future__ import annotations

import torch
from torch import Tensor


def may_fuse(states: Tensor) -> bool:
    """Return whether a custom autograd function may replace plain operations.

    It may not under a compiler, which fuses operations itself; inside transforms (``torch.func``), which must see the
    operations; and on the meta device, which has no data.
    """
    if torch.compiler.is_compiling() or states.device.type == "meta":
        return False
    return torch._C._functorch.peek_interpreter_stack() is None


def autocast_dtype(states: Tensor) -> torch.dtype | None:
    """Return the dtype that autocast uses for products on the device of ``states``; None outside autocast."""
    device = states.device.type
    # torch 2.11 cannot compile the question whether a device has autocast; those that it compiles for do
    has_autocast = torch.compiler.is_compiling() or torch.amp.is_autocast_available(device)
    if not has_autocast or not torch.is_autocast_enabled(device):
        return None
    return torch.get_autocast_dtype(device)


def needs_gradient(*tensors: Tensor) -> bool:
    """Return whether a function of these tensors must save intermediate results for its gradient.

    Call this before entering an autograd function. Inside it gradients are disabled, and ``needs_input_grad`` is True
    for trainable weights even when no gradient will be computed.
    """
    return torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors)


_ORDINARY = 1e15  # the sum of the squares of many such numbers is finite in float32 and bfloat16


def without_padding(states: Tensor, mask: Tensor) -> Tensor:
    """Return states ``[B, N, ...]`` whose padding, where the bool ``mask [B, N]`` is False, cannot change a result.

    Padding of ordinary size is harmless, because it is multiplied by 0, and stays. Otherwise, and where looking at the
    values would wait for a GPU, it becomes 0: 0 * NaN is not 0, neither in a result nor in a gradient.
    """
    if mask.device.type == "cpu" and may_fuse(states):
        if not states.numel() or mask.all():
            return states
        least, most = torch.aminmax(states.detach())  # NaN is the least and the greatest
        if least > -_ORDINARY and most < _ORDINARY:
            return states
    return states.masked_fill(~mask.view(*mask.shape, *[1] * (states.ndim - 2)), 0)
