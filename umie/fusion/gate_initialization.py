"""Open the gate of gated attention before training: set its projections so that their outputs start aligned."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@torch.no_grad()
def open_gate(sides: list[tuple[nn.Sequential, Tensor]], cosine: float) -> float:
    """Set two gate projections so that the mean cosine of their outputs is ``cosine`` on this batch.

    From random weights the gate starts near 0, falls below it within a few tens of steps, and stays on LeakyReLU's
    slope of 0.01, where the visual path gets almost no gradient. Here each projection gets a rank-one component that
    maps its mean input to one shared direction. A bisection finds the strength of this component relative to the
    random part. The gate's formula does not change.

    Args:
        sides: for text and image the projection (two linear layers) and its inputs, ``[B, D]``.
        cosine: the target.

    Returns:
        The mean cosine on the batch after the change.
    """
    random_weights = [[weight.clone() for weight in projection.parameters()] for projection, _ in sides]
    out_features, states = len(random_weights[0][1]), sides[0][1]
    shared = F.normalize(torch.randn(out_features, device=states.device, dtype=states.dtype), dim=0)

    def set_strength(strength: float) -> float:
        """Blend the random weights with the shared direction; return the mean cosine."""
        for (projection, means), (first, second) in zip(sides, random_weights, strict=True):
            common = F.normalize(means.mean(0), dim=0)
            # The hidden direction carries the common component through both layers of the projection.
            hidden = F.normalize(first @ common, dim=0)
            parameters = list(projection.parameters())
            parameters[0].copy_(first + strength * first.norm() * torch.outer(hidden, common))
            parameters[1].copy_(second + strength * second.norm() * torch.outer(shared, hidden))
        projected = [projection(means) for projection, means in sides]
        return float(F.cosine_similarity(*projected).mean())

    low, high = 0.0, 8.0
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if set_strength(middle) < cosine else (low, middle)
    return set_strength(high)
