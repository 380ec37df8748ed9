"""When code may compute from the weights of a linear layer, instead of calling the layer."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def are_plain(*projections: nn.Module, may_have_bias: bool = False) -> bool:
    """Return whether each projection is an ``nn.Linear``, by default without bias, that computes from its weights only.

    Adapters (LoRA) and quantized layers replace an ``nn.Linear`` and still have a ``weight``; offloading replaces a
    layer's ``forward``; hooks watch its calls. Code that computes from the weights would silently skip all of these.
    """
    return all(
        type(projection) is nn.Linear
        and "forward" not in projection.__dict__
        # a compiler passes tensor subclasses
        and (type(projection.weight) in (Tensor, nn.Parameter) or torch.compiler.is_compiling())
        and (may_have_bias or projection._parameters["bias"] is None)
        and not projection._forward_hooks
        and not projection._forward_pre_hooks
        and not projection._backward_hooks
        and not projection._backward_pre_hooks
        for projection in projections
    )
