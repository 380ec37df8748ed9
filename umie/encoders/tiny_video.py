"""`tiny_video`: trainable features from a small crop of each track and its path, cheap enough to train on a CPU."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from umie.encoders import registry
from umie.encoders.base import NUM_STEPS, WHOLE_IMAGE, EncoderConfig, VideoPreprocessor, VisualEncoder, steps_of
from umie.encoders.tiny import crops_of
from umie.errors import check_whole
from umie.media import Clip
from umie.records import Track


@dataclass(frozen=True, kw_only=True)
class TinyVideoEncoderConfig(EncoderConfig):
    """Options of the tiny video encoder.

    Args:
        num_frames: the most frames of a clip that are read.
        crop_size: side of the square crop of each track, in pixels.
        feature_dim: width of the features.
    """

    num_frames: int = 8
    crop_size: int = 10
    feature_dim: int = 128

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("num_frames", "crop_size", "feature_dim"):
            check_whole(name, getattr(self, name), 1)


class TinyVideoPreprocessor(VideoPreprocessor):
    """Crops each slot from the frame in the middle of its track: ``crops [V, 3, S, S]`` in -1..1."""

    def tensors(self, clip: Clip, tracks: Sequence[Track | None]) -> dict[str, Tensor]:
        """Return the crops of one clip."""
        crops = []
        for track in tracks:
            start, end = (0.0, clip.seconds) if track is None else track.interval
            middle = start + (end - start) * (NUM_STEPS // 2) / (NUM_STEPS - 1)
            frame = max((index for index, time in enumerate(clip.times) if time <= middle), default=0)
            box = WHOLE_IMAGE if track is None else steps_of(track)[NUM_STEPS // 2]
            crops.append(crops_of(clip.frames[frame], [box], self.config.crop_size))
        return {"crops": torch.cat(crops)}

    def no_tensors(self) -> dict[str, Tensor]:
        """Return no crops."""
        return {"crops": torch.zeros(0, 3, self.config.crop_size, self.config.crop_size)}


@registry.register("tiny_video")
class TinyVideoEncoder(VisualEncoder):
    """A two-layer perceptron over the crop and the path of each track, trained from scratch with the model."""

    Config = TinyVideoEncoderConfig
    Preprocessor = TinyVideoPreprocessor
    config: TinyVideoEncoderConfig

    def __init__(self, config: TinyVideoEncoderConfig) -> None:
        super().__init__(config)
        self.layers = nn.Sequential(
            nn.Linear(3 * config.crop_size**2 + 4 * NUM_STEPS, config.feature_dim),
            nn.GELU(),
            nn.Linear(config.feature_dim, config.feature_dim),
        )
        self.train()

    def features(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """Return ``[B, V, Dv]`` from ``crops [B, V, 3, S, S]`` and ``paths [B, V, P, 4]``."""
        crops = inputs["crops"].flatten(2)
        features: Tensor = self.layers(torch.cat([crops, inputs["paths"].flatten(2).to(crops.dtype)], dim=2))
        return features
