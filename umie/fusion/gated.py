"""`gated`: UMIE's gated attention, where one number per example weighs what the text finds in the image."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from umie.errors import UmieError, check_choice
from umie.fusion import registry
from umie.fusion.base import AttentionFusionConfig, Fusion
from umie.fusion.feed_forward import GatedFeedForward
from umie.fusion.norm import RMSNorm
from umie.fusion.slices import in_slices
from umie.types import FusedStates

GATE_HIDDEN, GATE_OUT = 384, 128  # the released code's widths
TAU = math.exp(0.5)
SLOPE = 0.01


@dataclass(frozen=True, kw_only=True)
class GatedFusionConfig(AttentionFusionConfig):
    """Options of gated attention.

    Args:
        residual: ``paper`` adds ``g * A``; ``released`` adds ``g * F`` with ``R = H + A`` and
            ``F = R + FFN(LN(R))``, and applies the gate's LeakyReLU twice.
        gate: ``dynamic``, or a number at which the gate is fixed for every example with an image.
        gate_gradient: ``full``, or ``detached``: the gate's gradient then stops at the two means, so that it
            trains the gate alone and not the states.
        scaled: divide the attention logits by sqrt(head_dim); None follows the residual: the paper's eq. 6
            does, the released code does not.
    """

    residual: Literal["paper", "released"] = "paper"
    gate: Literal["dynamic"] | float = "dynamic"
    gate_gradient: Literal["full", "detached"] = "full"
    scaled: bool | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("residual", self.residual, ("paper", "released"))
        check_choice("gate_gradient", self.gate_gradient, ("full", "detached"))
        if self.scaled not in (None, True, False):
            raise UmieError(f"scaled is {self.scaled!r}: give true or false, or leave it out")
        is_number = isinstance(self.gate, int | float) and not isinstance(self.gate, bool)
        if self.gate != "dynamic" and not (is_number and math.isfinite(float(self.gate))):
            raise UmieError(f"gate is {self.gate!r}: give 'dynamic' or a number such as 0.05")


@registry.register("gated")
class GatedFusion(Fusion):
    """Attention from text to visual slots, added with a gate. Source: UMIE, eq. 6 to 8.

    ``A = MHA(LN(H) -> V)``; ``g = LeakyReLU(tau * cos(Wt mean(H), Wv mean(V)))`` with tau = e^0.5;
    ``H' = H + g * A``. Means go over real tokens and slots; without an image g is 0, also when it is fixed.
    """

    Config = GatedFusionConfig

    def __init__(self, config: GatedFusionConfig) -> None:
        super().__init__(config)
        self.config: GatedFusionConfig = config
        d_model = config.d_model
        scaled = config.residual == "paper" if config.scaled is None else config.scaled
        self.norm = RMSNorm(d_model)
        self.attention = config.attention(scaled=scaled)
        self.dropout = nn.Dropout(config.dropout)
        if config.residual == "released":
            self.feed_forward_norm = RMSNorm(d_model)
            self.feed_forward = GatedFeedForward(d_model, config.d_ff or 2 * d_model)
        self.gate_text: nn.Sequential | None = None
        self.gate_visual: nn.Sequential | None = None
        if config.gate == "dynamic":
            self.gate_text, self.gate_visual = _gate_projection(d_model), _gate_projection(d_model)

    def forward(
        self,
        text: Tensor,
        text_mask: Tensor,
        visual: Tensor,
        visual_mask: Tensor,
        *,
        output_attention: bool = False,
    ) -> FusedStates:
        """Fuse a batch; see the contract. ``.gate`` is ``[B]``."""
        gate = self.gate_value(text, text_mask, visual, visual_mask)
        weights = self.attention.weights(self.norm(text), visual, visual_mask) if output_attention else None
        add = self._add_released if self.config.residual == "released" else self._add_paper
        parts = text, text_mask, visual, visual_mask, gate
        # In training dropout must not hang on slices, which are taken without gradients only (checkpointing).
        states = add(*parts) if self.training else in_slices(add, *parts)
        return FusedStates(states, text_mask, gate=gate, attention=weights)

    def _add_paper(self, text: Tensor, text_mask: Tensor, visual: Tensor, visual_mask: Tensor, gate: Tensor) -> Tensor:
        """Return ``H + g * A``; without dropout the layer adds both itself."""
        if self.training and self.dropout.p:
            found, _ = self.attention(text, visual, visual_mask, query_mask=text_mask, norm=self.norm)
            return torch.addcmul(text, gate[:, None, None], self.dropout(found))
        states: Tensor
        states, _ = self.attention(
            text, visual, visual_mask, query_mask=text_mask, gate=gate, residual=text, norm=self.norm
        )
        return states

    def _add_released(
        self, text: Tensor, text_mask: Tensor, visual: Tensor, visual_mask: Tensor, gate: Tensor
    ) -> Tensor:
        """Return ``H + g * F`` with ``R = H + A`` and ``F = R + FFN(LN(R))``."""
        found, _ = self.attention(text, visual, visual_mask, query_mask=text_mask, residual=text, norm=self.norm)
        found = self.feed_forward.add_to(found, self.feed_forward_norm(found), in_place=True)
        alone = not (self.training or torch.is_grad_enabled() or torch.compiler.is_compiling())
        if alone and found.dtype == text.dtype:
            return found.mul_(gate[:, None, None]).add_(text)  # in memory that is there
        return torch.addcmul(text, gate[:, None, None], self.dropout(found))

    def gate_value(self, text: Tensor, text_mask: Tensor, visual: Tensor, visual_mask: Tensor) -> Tensor:
        """Return the gate ``[B]``, 0 where an example has no image."""
        has_image = visual_mask.any(dim=1)
        if self.gate_text is None or self.gate_visual is None:
            return has_image.to(text.dtype) * float(self.config.gate)
        means = masked_mean(text, text_mask), masked_mean(visual, visual_mask)
        if self.config.gate_gradient == "detached":
            means = means[0].detach(), means[1].detach()
        wide = torch.promote_types(text.dtype, torch.float32)  # the cosine's least norm, 1e-8, is 0 in float16
        sides = self.gate_text(means[0]).to(wide), self.gate_visual(means[1]).to(wide)
        gate = F.leaky_relu(TAU * F.cosine_similarity(*sides), SLOPE)
        if self.config.residual == "released":
            gate = F.leaky_relu(gate, SLOPE)
        return gate.masked_fill(~has_image, 0).to(text.dtype)

    @torch.no_grad()
    def initialize(
        self,
        text: Tensor,
        text_mask: Tensor,
        visual: Tensor,
        visual_mask: Tensor,
        *,
        cosine: float = 0.75,
    ) -> dict[str, float]:
        """Set Wt and Wv so that the gate starts open: mean cosine ``cosine`` on this batch.

        From random weights the gate starts near 0, falls below it within some tens of steps, and stays there
        on LeakyReLU's slope of 0.01, where the visual path gets almost no gradient. Here both projections get
        a component of rank one that maps the mean text state and the mean visual state to the same
        direction, as much stronger than the random part as the wanted cosine needs. The formula is untouched.

        Returns:
            ``gate_cosine``: the mean cosine on the batch afterwards; empty for a fixed gate, or without
            any image in the batch.
        """
        has_image = visual_mask.any(dim=1)
        if self.gate_text is None or self.gate_visual is None or not has_image.any():
            return {}
        sides = [
            (self.gate_text, masked_mean(text, text_mask)[has_image]),
            (self.gate_visual, masked_mean(visual, visual_mask)[has_image]),
        ]
        shared = F.normalize(torch.randn(GATE_OUT, device=text.device, dtype=text.dtype), dim=0)
        random_weights = [[weight.clone() for weight in projection.parameters()] for projection, _ in sides]

        def set_strength(strength: float) -> float:
            """Blend the random weights with the common direction; return the mean cosine."""
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
        return {"gate_cosine": set_strength(high)}


def masked_mean(states: Tensor, mask: Tensor) -> Tensor:
    """Return the mean ``[B, D]`` of ``states [B, N, D]`` over what ``mask [B, N]`` calls real; 0 if nothing is."""
    weights = mask.to(states.dtype)
    weights = weights / weights.sum(dim=1, keepdim=True).clamp(min=1)
    return torch.bmm(weights[:, None], states)[:, 0]  # no masked copy of the states


def _gate_projection(d_model: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(d_model, GATE_HIDDEN, bias=False), nn.Linear(GATE_HIDDEN, GATE_OUT, bias=False))
