"""`pe_a_frame`: where a sound is what a phrase describes, frame by frame."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from umie.encoders.segments.intervals import high_intervals
from umie.errors import check_positive
from umie.grounders import registry
from umie.grounders.base import CheckpointGrounderConfig, ModelGrounder
from umie.grounders.windows import windows
from umie.media import SoundSource, open_sound
from umie.records import Segment


@dataclass(frozen=True, kw_only=True)
class PeAudioConfig(CheckpointGrounderConfig):
    """Options of the Perception Encoder for sounds.

    Args:
        checkpoint: the directory or hub name of the model with its processor.
        min_score: the probability that a segment has at its loudest.
        release: the probability down to which it extends on both sides.
        min_length: seconds of the shortest segment.
        min_gap: seconds of the shortest gap between two segments.
        device: where the model runs, e.g. "cuda".
    """

    kind = "PE-A-Frame"
    example = "facebook/pe-a-frame-small"

    min_score: float = 0.5
    release: float = 0.3
    min_length: float = 0.08
    min_gap: float = 0.12

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("release", "min_length", "min_gap"):
            check_positive(name, getattr(self, name))


@registry.register("pe_a_frame")
class PeAudioGrounder(ModelGrounder):
    """The segments of a sound, such as "a dog barks", that are most probable first; in the place of SHAS in REAMO.

    Source: Vyas et al. 2025, Perception Encoder Audiovisual, as implemented in transformers: one embedding every 40 ms.
    """

    Config = PeAudioConfig
    config: PeAudioConfig
    medium = "audio"
    model_class = "PeAudioFrameLevelModel"

    def find(self, source: SoundSource, phrases: Sequence[str], known: Sequence[Segment] = ()) -> list[list[Segment]]:
        """Return the segments in which each phrase is heard; ``known`` is not used."""
        model, processor = self._model
        rate = processor.feature_extractor.sampling_rate
        sound = open_sound(source, rate)
        text = processor.tokenizer(list(phrases), return_tensors="pt", padding=True, truncation=True).to(model.device)
        parts = []
        for window in windows(sound.samples, rate):
            heard = processor.feature_extractor(window, sampling_rate=rate, return_tensors="pt").to(model.device)
            with torch.inference_mode():
                output = model(
                    input_ids=text.input_ids,
                    attention_mask=text.attention_mask,
                    input_values=heard["input_values"],
                )
            parts.append(output.logits_audio_text[0].float().sigmoid().cpu())
        curves = torch.cat(parts, 1).numpy()  # [phrases, frames]
        step = sound.seconds / curves.shape[1]
        config = self.config
        found = []
        for phrase, curve in zip(phrases, curves, strict=True):
            intervals = high_intervals(
                curve,
                step,
                onset=config.min_score,
                release=min(config.release, config.min_score),
                min_length=config.min_length,
                min_gap=config.min_gap,
            )
            intervals.sort(key=lambda edges: -float(curve[edges[0] : edges[1]].max()))
            found.append(
                [
                    Segment((first * step, min(end * step, sound.seconds)), phrase)
                    for first, end in intervals[: config.top]
                ]
            )
        return found
