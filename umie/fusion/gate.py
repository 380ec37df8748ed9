"""The options of gated attention, and the parts of its gate: projections, means, and how training opens it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from umie.errors import UmieError, check_choice, check_flag
from umie.fusion.base import AttentionFusionConfig

GATE_HIDDEN, GATE_OUT = 384, 128  # the released code's widths


@dataclass(frozen=True, kw_only=True)
class GatedFusionConfig(AttentionFusionConfig):
    """Options of gated attention.

    Args:
        residual: ``paper`` adds ``g * A``; ``released`` adds ``g * F`` with ``R = H + A`` and
            ``F = R + FFN(LN(R))``, and applies the gate's LeakyReLU twice.
        gate: ``dynamic``, or a fixed number for every example with an image.
        detach_gate: stop the gate's gradient at the two means, so that it trains only the gate's own weights.
        scaled: divide the attention logits by sqrt(head_dim). None depends on ``residual``: true for ``paper``
            (eq. 6), false for ``released``.
    """

    residual: Literal["paper", "released"] = "paper"
    gate: Literal["dynamic"] | float = "dynamic"
    detach_gate: bool = False
    scaled: bool | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("residual", self.residual, ("paper", "released"))
        check_flag("detach_gate", self.detach_gate)
        if self.scaled not in (None, True, False):
            raise UmieError(f"scaled is {self.scaled!r}: use true or false, or omit it")
        is_number = isinstance(self.gate, int | float) and not isinstance(self.gate, bool)
        if self.gate != "dynamic" and not (is_number and math.isfinite(float(self.gate))):
            raise UmieError(f"gate is {self.gate!r}: use 'dynamic' or a number such as 0.05")


def gate_projection(d_model: int) -> nn.Sequential:
    """Return the map of a mean state ``[B, D]`` to the space where text and image are compared."""
    return nn.Sequential(nn.Linear(d_model, GATE_HIDDEN, bias=False), nn.Linear(GATE_HIDDEN, GATE_OUT, bias=False))


def masked_mean(states: Tensor, mask: Tensor) -> Tensor:
    """Return the mean ``[B, D]`` of ``states [B, N, D]`` where ``mask [B, N]`` is True; 0 if it is nowhere True."""
    weights = mask.to(states.dtype)
    weights = weights / weights.sum(dim=1, keepdim=True).clamp(min=1)
    return torch.bmm(weights[:, None], states)[:, 0]  # makes no masked copy of the states


@torch.no_grad()
def open_gate(sides: list[tuple[nn.Sequential, Tensor]], cosine: float) -> float:
    """Set two gate projections so that the mean cosine of their outputs is ``cosine`` on this batch.

    From random weights the gate starts near 0, falls below it within a few tens of steps, and stays on LeakyReLU's
    slope of 0.01, where the visual path gets almost no gradient. Here each projection gets a rank-one component that
    maps its mean input to one shared direction. A bisection finds the strength of this component relative to the
    random part. The gate's formula does not change.

    ``sides`` has the projection and its inputs ``[B, D]`` for text and image; the result is the mean cosine reached.
    """
    random_weights = [[weight.clone() for weight in projection.parameters()] for projection, _ in sides]
    states = sides[0][1]
    shared = F.normalize(torch.randn(GATE_OUT, device=states.device, dtype=states.dtype), dim=0)

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
