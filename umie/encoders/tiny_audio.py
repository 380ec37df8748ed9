"""`tiny_audio`: trainable features from a small spectrogram of each segment, cheap enough to train on a CPU."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from umie.encoders import registry
from umie.encoders.base import AudioPreprocessor, EncoderConfig, VisualEncoder
from umie.errors import check_positive, check_whole
from umie.media import Sound
from umie.records.places import Interval

LOWEST = 60.0  # Hz, the start of the lowest band
_QUIET = 1e-5  # power that counts as silence


@dataclass(frozen=True, kw_only=True)
class TinyAudioEncoderConfig(EncoderConfig):
    """Options of the tiny audio encoder.

    Args:
        rate: samples per second that the sound is resampled to.
        num_bands: bands of the spectrogram, equidistant in the logarithm of the frequency.
        num_steps: steps in time of the spectrogram of each segment, whatever its length.
        max_seconds: sound after this time is not heard.
        feature_dim: width of the features.
    """

    rate: int = 16_000
    num_bands: int = 16
    num_steps: int = 10
    max_seconds: float = 60.0
    feature_dim: int = 128

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("num_bands", "num_steps", "feature_dim"):
            check_whole(name, getattr(self, name), 1)
        check_whole("rate", self.rate, 1_000)
        check_positive("max_seconds", self.max_seconds)


class TinyAudioPreprocessor(AudioPreprocessor):
    """Log spectrograms of each slot, of equal size: ``bands [V, num_bands, num_steps]``, about -1..1."""

    def tensors(self, sound: Sound, intervals: Sequence[Interval]) -> dict[str, Tensor]:
        """Return the spectrograms of one sound."""
        rate, num_steps = self.config.rate, self.config.num_steps
        window = 2 ** round(math.log2(rate / 20))  # about 50 ms
        hop = window // 2
        samples = torch.from_numpy(sound.samples[: int(self.config.max_seconds * rate) + 1])
        samples = F.pad(samples, (hop, window))  # a window is centered at the start, and there is one at least
        frames = samples.unfold(0, window, hop) * torch.hann_window(window)
        spectrum = torch.view_as_real(torch.fft.rfft(frames))
        power = spectrum.square().sum(dim=-1) / window  # [frames, window / 2 + 1]
        bands = power @ _filters(window, rate, self.config.num_bands)
        levels = (bands + _QUIET).log() - math.log(_QUIET)  # 0 in silence
        levels = levels.T / 6 - 1
        cut = []
        for start, end in intervals:
            first = min(int(start * rate / hop), levels.shape[1] - 1)
            last = max(first + 1, min(math.ceil(end * rate / hop), levels.shape[1]))
            cut.append(F.adaptive_avg_pool1d(levels[:, first:last], num_steps))
        return {"bands": torch.stack(cut)}

    def no_tensors(self) -> dict[str, Tensor]:
        """Return no spectrograms."""
        return {"bands": torch.zeros(0, self.config.num_bands, self.config.num_steps)}


@cache  # of every sound
def _filters(window: int, rate: int, num_bands: int) -> Tensor:
    """Return ``[window / 2 + 1, num_bands]``, which averages the frequencies of each band, or takes the nearest one."""
    edges = torch.logspace(math.log10(LOWEST), math.log10(rate / 2), num_bands + 1)
    frequencies = torch.arange(window // 2 + 1) * (rate / window)
    inside = (frequencies[:, None] >= edges[:-1]) & (frequencies[:, None] < edges[1:])
    centers = (edges[:-1] * edges[1:]).sqrt()
    nearest = F.one_hot((frequencies[:, None] - centers).abs().argmin(dim=0), len(frequencies)).T.bool()
    chosen = torch.where(inside.any(dim=0), inside, nearest).float()
    return chosen / chosen.sum(dim=0)


@registry.register("tiny_audio")
class TinyAudioEncoder(VisualEncoder):
    """A two-layer perceptron over the spectrogram of each segment, trained from scratch with the model."""

    Config = TinyAudioEncoderConfig
    Preprocessor = TinyAudioPreprocessor
    config: TinyAudioEncoderConfig

    def __init__(self, config: TinyAudioEncoderConfig) -> None:
        super().__init__(config)
        self.layers = nn.Sequential(
            nn.Linear(config.num_bands * config.num_steps, config.feature_dim),
            nn.GELU(),
            nn.Linear(config.feature_dim, config.feature_dim),
        )
        self.train()

    def features(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """Return ``[B, V, Dv]`` from ``bands [B, V, num_bands, num_steps]``."""
        features: Tensor = self.layers(inputs["bands"].flatten(2))
        return features
