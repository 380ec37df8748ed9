"""`tiny`: trainable features from a small crop of each region, cheap enough to train on a CPU."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from PIL import Image
from torch import Tensor, nn

from umie.encoders import registry
from umie.encoders.base import EncoderConfig, Preprocessor, VisualEncoder
from umie.encoders.tower import cut
from umie.errors import check_whole
from umie.records import Box


@dataclass(frozen=True, kw_only=True)
class TinyEncoderConfig(EncoderConfig):
    """Options of the tiny encoder.

    Args:
        crop_size: side of the square crop of each region, in pixels.
        feature_dim: width of the features.
    """

    crop_size: int = 10
    feature_dim: int = 128

    def __post_init__(self) -> None:
        super().__post_init__()
        check_whole("crop_size", self.crop_size, 1)
        check_whole("feature_dim", self.feature_dim, 1)


class TinyPreprocessor(Preprocessor):
    """Crops each slot and resizes it to ``crop_size``: ``crops [V, 3, S, S]`` in -1..1."""

    def tensors(self, image: Image.Image, boxes: Sequence[Box]) -> dict[str, Tensor]:
        """Return the crops of one image."""
        return {"crops": crops_of(image, boxes, self.config.crop_size)}

    def no_tensors(self) -> dict[str, Tensor]:
        """Return zero crops."""
        size = self.config.crop_size
        return {"crops": torch.zeros(0, 3, size, size)}


def crops_of(image: Image.Image, boxes: Sequence[Box], size: int) -> Tensor:
    """Return square crops of an image, ``[V, 3, size, size]`` in -1..1."""
    crops = torch.empty(len(boxes), 3, size, size)
    for crop, box in zip(crops, boxes, strict=True):
        pixels = cut(image, box).resize((size, size), Image.Resampling.BILINEAR)
        flat = torch.frombuffer(bytearray(pixels.tobytes()), dtype=torch.uint8)
        crop.copy_(flat.view(size, size, 3).permute(2, 0, 1))
    return crops / 127.5 - 1


@registry.register("tiny")
class TinyEncoder(VisualEncoder):
    """A two-layer perceptron over the pixels of each crop, trained from scratch with the model."""

    Config = TinyEncoderConfig
    Preprocessor = TinyPreprocessor
    config: TinyEncoderConfig

    def __init__(self, config: TinyEncoderConfig) -> None:
        super().__init__(config)
        self.layers = nn.Sequential(
            nn.Linear(3 * config.crop_size**2, config.feature_dim),
            nn.GELU(),
            nn.Linear(config.feature_dim, config.feature_dim),
        )
        self.train()

    def features(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """Return ``[B, V, Dv]`` from ``crops [B, V, 3, S, S]``."""
        features: Tensor = self.layers(inputs["crops"].flatten(2))
        return features
