"""A custom encoder outside the package: the mean color of each slot, projected to the width of the features."""

import torch
from torch import nn

from umie.encoders import EncoderConfig, Preprocessor, VisualEncoder, registry
from umie.encoders.tower import cut


class Colors(Preprocessor):
    """``colors [V, 3]`` in 0..1."""

    def tensors(self, image, boxes):
        pixels = [cut(image, box).resize((1, 1)).getpixel((0, 0)) for box in boxes]
        return {"colors": torch.tensor(pixels, dtype=torch.float32) / 255}

    def no_tensors(self):
        return {"colors": torch.zeros(0, 3)}


@registry.register("mean_color")
class MeanColor(VisualEncoder):
    """A linear layer over the mean color of each slot."""

    Config, Preprocessor = EncoderConfig, Colors

    def __init__(self, config):
        super().__init__(config)
        self.project = nn.Linear(3, self.feature_dim)

    @property
    def feature_dim(self):
        return 32

    def features(self, inputs):
        return self.project(inputs["colors"])
