"""`transformers_audio`: sounds and segments through CLAP, Whisper, wav2vec 2.0, WavLM, HuBERT, AST or PE-Audio."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from umie.encoders import registry
from umie.encoders.audio_families import FAMILIES, WHOLES, AudioFamily
from umie.encoders.base import AudioPreprocessor
from umie.encoders.transformers_base import TransformersConfig, TransformersEncoder, Whole
from umie.errors import UmieError, check_positive, check_whole
from umie.media import Sound
from umie.media.sound import MIN_RATE, Samples
from umie.records.places import Interval
from umie.weights import reason_of

SHORTEST = 0.1  # seconds; shorter sounds, and the rests of longer ones, are padded with silence
MAX_WINDOW = 600  # seconds


@dataclass(frozen=True, kw_only=True)
class TransformersAudioConfig(TransformersConfig):
    """Options of the encoder of sounds from transformers.

    Args:
        max_seconds: sound after this time is not heard. Models of windows (Whisper: 30 s, CLAP and AST: 10 s) hear a
            longer sound in several windows; the others hear it at once, at a cost that grows with its square.
    """

    FAMILIES: ClassVar[Mapping[str, AudioFamily]] = FAMILIES
    WHOLES: ClassVar[Mapping[str, Whole]] = WHOLES
    PREPARED_BY: ClassVar[tuple[tuple[str, str | None], ...]] = (
        ("processor_config.json", "feature_extractor"),
        ("preprocessor_config.json", None),
    )

    max_seconds: float = 30.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive("max_seconds", self.max_seconds)

    @property
    def rate(self) -> int:
        """Samples per second that the model takes."""
        rate: int = self.extractor.sampling_rate
        return rate

    @cached_property
    def extractor(self) -> Any:
        """The feature extractor of transformers."""
        try:
            with warnings.catch_warnings(action="ignore"):  # AST's lowest filters have no frequency
                extractor = self.family.extractor(self.prepared)
            check_whole("sampling_rate", extractor.sampling_rate, MIN_RATE)
            window = self.family.window(extractor)
        except UmieError:
            raise
        except Exception as error:  # a value of a wrong kind makes the extractors raise nearly anything
            raise UmieError(f"{self._name}: its preparation cannot be used: {reason_of(error)}") from error
        if window is not None and not 0 < window <= MAX_WINDOW * extractor.sampling_rate:
            raise UmieError(f"{self._name}: its windows have {window:,} samples: use at most {MAX_WINDOW} seconds")
        return extractor


class TransformersAudioPreprocessor(AudioPreprocessor):
    """Prepares sounds as the model's feature extractor does.

    ``sound [W, M, N]`` are the windows of a sound, of samples (M = 1) or of log-mel features; models that hear a sound
    at once take one window of any N. ``sound_size [2]`` is W and N without the padding of a batch, and ``frames
    [V, 2]`` the first and the last + 1 frame of each slot, numbered through all windows.
    """

    config: TransformersAudioConfig

    def tensors(self, sound: Sound, intervals: Sequence[Interval]) -> dict[str, Tensor]:
        """Return the tensors of one sound."""
        config = self.config
        samples = sound.samples[: max(1, round(config.max_seconds * config.rate))]
        window = config.family.window(config.extractor) or len(samples)
        windows = [samples[start : start + window] for start in range(0, len(samples), window)]
        shortest = math.ceil(SHORTEST * config.rate)
        prepared = torch.stack([config.family.prepare(config.extractor, _padded(one, shortest)) for one in windows])
        centers = self._centers([len(one) for one in windows])
        return {
            "sound": prepared,
            "sound_size": torch.tensor([prepared.shape[0], prepared.shape[2]]),
            "frames": torch.tensor([_under(interval, centers) for interval in intervals]),
        }

    def no_tensors(self) -> dict[str, Tensor]:
        """Return no sound."""
        return {
            "sound": torch.zeros(0, 0, 0),
            "sound_size": torch.zeros(2, dtype=torch.long),
            "frames": torch.zeros(0, 2, dtype=torch.long),
        }

    def _centers(self, lengths: Sequence[int]) -> list[tuple[int, float]]:
        """Return number and center, in seconds, of each frame under the sound; windows have ``lengths`` samples."""
        config = self.config
        offset, hop = config.family.steps(config.shape, config.extractor)
        in_window = config.family.num_frames(config.shape)
        centers, start = [], 0
        for window, length in enumerate(lengths):
            heard = max(1, math.ceil((length - offset) / hop))  # frames whose center is heard
            heard = heard if in_window is None else min(heard, in_window)
            first = window * (in_window or 0)
            centers += [(first + frame, (start + offset + frame * hop) / config.rate) for frame in range(heard)]
            start += length
        return centers


def _padded(samples: Samples, length: int) -> Samples:
    return np.pad(samples, (0, max(0, length - len(samples))))


def _under(interval: Interval, centers: Sequence[tuple[int, float]]) -> tuple[int, int]:
    """Return the first and the last + 1 of the frames whose center is inside an interval, or the nearest one."""
    start, end = interval
    inside = [number for number, center in centers if start <= center < end]
    if inside:
        return inside[0], inside[-1] + 1
    nearest = min(centers, key=lambda one: abs(one[1] - (start + end) / 2))[0]
    return nearest, nearest + 1


@registry.register("transformers_audio")
class TransformersAudioEncoder(TransformersEncoder):
    """Sounds through an audio model of transformers: the mean of the frames under each segment.

    The whole sound is the model's pooled output where it has one (CLAP, AST, PE-Audio), else the mean of its frames.
    """

    Config = TransformersAudioConfig
    Preprocessor = TransformersAudioPreprocessor
    config: TransformersAudioConfig

    def __init__(self, config: TransformersAudioConfig) -> None:
        config.family.check(config.shape, config.extractor)
        super().__init__(config)

    def features(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """Return ``[B, V, Dv]``; sounds are batched by their size, and never padded."""
        sound, frames, mask = inputs["sound"].to(self._dtype), inputs["frames"], inputs["visual_mask"]
        by_size: dict[tuple[int, int], list[int]] = {}
        sizes = inputs["sound_size"].tolist()
        for row in mask.any(1).nonzero().flatten().tolist():
            by_size.setdefault(tuple(sizes[row]), []).append(row)
        slots = sound.new_zeros(*mask.shape, self.feature_dim)
        with torch.set_grad_enabled(torch.is_grad_enabled() and self.config.trainable):
            for (count, size), same in by_size.items():
                rows = torch.tensor(same, device=mask.device)
                slots = slots.index_copy(0, rows, self._slots(sound[rows, :count, :, :size], frames[rows]))
        return slots

    def _slots(self, sound: Tensor, frames: Tensor) -> Tensor:
        """Return ``[n, V, Dv]`` from sounds ``[n, W, M, N]`` of equal size and their ``frames [n, V, 2]``."""
        states, pooled = self.config.family.run(self.tower, self.config.shape, sound.flatten(0, 1))
        states = states.reshape(len(sound), -1, self.feature_dim).float()
        number = torch.arange(states.shape[1], device=states.device)
        first = frames[..., :1].clamp(max=states.shape[1] - 1)
        under = ((number >= first) & (number < torch.maximum(frames[..., 1:], first + 1))).float()
        slots = (under @ states) / under.sum(2, keepdim=True)
        if pooled is not None:  # windows count by the frames that are heard in them
            heard = under[:, 0].view(*sound.shape[:2], -1).sum(2)
            pooled = pooled.view(*sound.shape[:2], -1).float()
            whole = torch.einsum("nw,nwd->nd", heard / heard.sum(1, keepdim=True), pooled)
            slots = torch.cat([whole[:, None], slots[:, 1:]], dim=1)
        found: Tensor = slots.to(self._dtype)
        return found
