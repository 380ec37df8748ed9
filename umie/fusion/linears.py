"""What a fused function asks first: whether it may run, past what, and what it must keep."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def are_plain(*projections: nn.Module) -> bool:
    """Return whether each projection is no more than its weight.

    Adapters (LoRA) and quantised layers take the place of an ``nn.Linear`` and still have a ``weight``; offloading
    replaces the ``forward`` of one; hooks watch its calls. What computes from weights alone would pass them by in
    silence.
    """
    return all(
        type(projection) is nn.Linear
        and "forward" not in projection.__dict__
        and (type(projection.weight) in (Tensor, nn.Parameter) or torch.compiler.is_compiling())  # a stand-in, there
        and projection._parameters["bias"] is None
        and not projection._forward_hooks
        and not projection._forward_pre_hooks
        and not projection._backward_hooks
        and not projection._backward_pre_hooks
        for projection in projections
    )


def may_fuse(states: Tensor) -> bool:
    """Return whether an autograd function may stand for plain operations here.

    A compiler fuses them itself, transforms (``torch.func``) must see them, and shapes alone are none of its business.
    """
    if torch.compiler.is_compiling() or states.device.type == "meta":
        return False
    return torch._C._functorch.peek_interpreter_stack() is None


def autocast_dtype(states: Tensor) -> torch.dtype | None:
    """Return the precision of products under autocast where the states lie; None outside of it."""
    device = states.device.type
    if not torch.amp.is_autocast_available(device) or not torch.is_autocast_enabled(device):
        return None
    return torch.get_autocast_dtype(device)


def keeps(*tensors: Tensor) -> bool:
    """Return whether a function of these must keep what its gradient needs.

    Inside an autograd function it is too late to ask: gradients are switched off there, and ``needs_input_grad`` is
    True for weights that learn also where nobody wants a gradient.
    """
    return torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors)
