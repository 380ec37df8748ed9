"""What a fused function asks first: are the projections no more than weights, and will a gradient be wanted?"""

from __future__ import annotations

import torch
from torch import Tensor, nn


def are_plain(*projections: nn.Module) -> bool:
    """Return whether each projection is no more than its weight.

    Adapters (LoRA) and quantised layers take the place of an ``nn.Linear`` and still have a ``weight``; hooks watch its
    calls. What computes from weights alone would pass them by in silence.
    """
    return all(
        type(projection) is nn.Linear
        and projection._parameters["bias"] is None
        and not projection._forward_hooks
        and not projection._forward_pre_hooks
        and not projection._backward_hooks
        and not projection._backward_pre_hooks
        for projection in projections
    )


def keeps(*tensors: Tensor) -> bool:
    """Return whether a function of these must keep what its gradient needs.

    Inside an autograd function it is too late to ask: gradients are switched off there, and ``needs_input_grad`` is
    True for weights that learn also where nobody wants a gradient.
    """
    return torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors)
