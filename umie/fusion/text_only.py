"""`text_only`: ignores the image; the baseline that any other fusion must beat."""

from __future__ import annotations

from torch import Tensor

from umie.fusion import registry
from umie.fusion.base import Fusion
from umie.types import FusedStates


@registry.register("text_only")
class TextOnlyFusion(Fusion):
    """Passes the text states through."""

    uses_image = False

    def forward(
        self, text: Tensor, text_mask: Tensor, visual: Tensor, visual_mask: Tensor, *, output_attention: bool = False
    ) -> FusedStates:
        """Return the text states unchanged."""
        return FusedStates(text, text_mask)
