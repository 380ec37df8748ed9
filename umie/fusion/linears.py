"""Whether projections may be computed from their weights, past their own forward."""

from __future__ import annotations

from torch import nn


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
        for projection in projections
    )
