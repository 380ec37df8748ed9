"""A custom fusion outside the package: add the mean visual state to every text state."""

import torch
from torch import nn

from umie.fusion import FusedStates, Fusion, registry


@registry.register("mean_add")
class MeanAddFusion(Fusion):
    """``H' = H + W mean(V)``, with the mean over real slots; adds nothing without an image."""

    def __init__(self, config):
        super().__init__(config)
        self.project = nn.Linear(config.d_model, config.d_model, bias=False)

    def forward(self, text, text_mask, visual, visual_mask, *, output_attention=False):
        weights = visual_mask[..., None].to(text.dtype)
        mean = (visual * weights).sum(1) / torch.clamp(weights.sum(1), min=1)
        return FusedStates(text + self.project(mean)[:, None], text_mask)
