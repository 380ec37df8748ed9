"""`concat`: the visual states follow the text states, and the decoder attends over both."""

from __future__ import annotations

import torch
from torch import Tensor

from umie.fusion import registry
from umie.fusion.base import Fusion
from umie.types import FusedStates


@registry.register("concat")
class ConcatFusion(Fusion):
    """Concatenation along the sequence; the only built-in fusion that lengthens it (T' = T + V)."""

    def forward(
        self, text: Tensor, text_mask: Tensor, visual: Tensor, visual_mask: Tensor, *, output_attention: bool = False
    ) -> FusedStates:
        """Append the visual states; if no example has an image, return the text states unchanged."""
        # A compiled graph cannot branch on the mask; the appended states are masked, so the result is equivalent.
        if not torch.compiler.is_compiling() and not visual_mask.any():
            return FusedStates(text, text_mask)
        visual = visual.masked_fill(~visual_mask[..., None], 0)
        return FusedStates(torch.cat([text, visual], dim=1), torch.cat([text_mask, visual_mask], dim=1))
