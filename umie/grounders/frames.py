"""`frames`: the spoken parts of a sound, whatever the phrase, as in REAMO."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from umie.errors import UmieError, check_positive
from umie.grounders import registry
from umie.grounders.base import CheckpointGrounderConfig, ModelGrounder
from umie.grounders.windows import windows
from umie.media import SoundSource, open_sound
from umie.records import Segment


@dataclass(frozen=True, kw_only=True)
class FramesConfig(CheckpointGrounderConfig):
    """Options of the segmentation of speech.

    Args:
        checkpoint: the directory or hub name of a model of transformers that classifies the frames of a sound, with its
            processor, such as wav2vec2 with a linear layer.
        min_score: the probability of speech below which a frame is silence.
        max_length: seconds of the longest segment; longer ones are divided where speech is least probable.
        min_length: seconds of the shortest segment.
        device: where the model runs, e.g. "cuda".
    """

    kind = "a classifier of the frames of a sound"
    example = "anton-l/wav2vec2-base-superb-sd"

    min_score: float = 0.5
    max_length: float = 18.0
    min_length: float = 0.2

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("max_length", "min_length"):
            check_positive(name, getattr(self, name))
        if self.min_length * 2 > self.max_length:
            raise UmieError(
                f"min_length is {self.min_length:g}: use at most half of max_length, {self.max_length:g}, so that a "
                "segment can be divided"
            )


@registry.register("frames")
class FramesGrounder(ModelGrounder):
    """The segments of speech that are most probable, the same for each phrase: it does not read the phrase.

    It is here for comparison: REAMO locates mentions in speech in this way. Source: Tsiamas et al. 2022, SHAS:
    Approaching Optimal Segmentation for End-to-End Speech Translation, Section 3.2.
    """

    Config = FramesConfig
    config: FramesConfig
    medium = "audio"
    model_class = "AutoModelForAudioFrameClassification"
    processor_class = "AutoFeatureExtractor"

    def find(self, source: SoundSource, phrases: Sequence[str], known: Sequence[Segment] = ()) -> list[list[Segment]]:
        """Return the segments of speech, once for each phrase; ``known`` is not used."""
        model, extractor = self._model
        sound = open_sound(source, extractor.sampling_rate)
        parts = []
        for window in windows(sound.samples, extractor.sampling_rate):
            inputs = extractor(window, sampling_rate=extractor.sampling_rate, return_tensors="pt").to(model.device)
            with torch.inference_mode():
                parts.append(model(**inputs).logits[0].float().sigmoid().amax(1).cpu())  # of any class
        speech = torch.cat(parts).numpy()
        step = sound.seconds / len(speech)
        config = self.config
        shortest = max(1, round(config.min_length / step))
        lengths = shortest, max(2 * shortest, round(config.max_length / step))
        found = sorted(
            divide(speech, 0, len(speech), config.min_score, *lengths),
            key=lambda edges: -float(speech[edges[0] : edges[1]].mean()),
        )
        return [
            [Segment((first * step, min(end * step, sound.seconds)), phrase) for first, end in found[: config.top]]
            for phrase in phrases
        ]


def divide(
    speech: NDArray[np.floating[Any]], first: int, end: int, threshold: float, shortest: int, longest: int
) -> Iterator[tuple[int, int]]:
    """Yield the parts of a range of frames, without silence around them, each at most ``longest`` frames.

    A range that is too long is divided at the frame with the least speech that leaves two parts of at least
    ``shortest`` frames, and so are its parts.

    Args:
        speech: the probability of speech in each frame.
        first: the first frame of the range.
        end: the one after its last.
        threshold: the probability below which a frame is silence.
        shortest: frames of the shortest part; shorter ones are left out.
        longest: frames of the longest part.
    """
    ranges = [(first, end)]
    while ranges:
        first, end = ranges.pop()
        inside = (speech[first:end] >= threshold).nonzero()[0]
        if not len(inside) or inside[-1] + 1 - inside[0] < max(shortest, 1):
            continue
        first, end = first + int(inside[0]), first + int(inside[-1]) + 1
        if end - first <= longest:
            yield first, end
            continue
        margin = max(shortest, 1)
        middle = first + margin + int(speech[first + margin : end - margin].argmin())
        ranges += [(middle, end), (first, middle)]
