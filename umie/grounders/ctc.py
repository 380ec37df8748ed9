"""`ctc`: where speech says a phrase, by aligning its letters with the output of a speech recognizer."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from umie.errors import UmieError
from umie.grounders import registry
from umie.grounders.base import CheckpointGrounderConfig, ModelGrounder
from umie.grounders.windows import windows
from umie.media import SoundSource, open_sound
from umie.records import Segment


@dataclass(frozen=True, kw_only=True)
class CtcGrounderConfig(CheckpointGrounderConfig):
    """Options of the aligner.

    Args:
        checkpoint: the directory or hub name of a CTC model of transformers with its processor.
        min_score: the mean probability of the letters, relative to the most probable ones (0..1).
        device: where the model runs, e.g. "cuda".
    """

    kind = "a CTC model"
    example = "facebook/wav2vec2-base-960h"

    min_score: float = 0.3


class Aligned(NamedTuple):
    """Where tokens are said: the first and the last + 1 frame, and how sure that is, 0..1."""

    first: int
    end: int
    score: float


@registry.register("ctc")
class CtcGrounder(ModelGrounder):
    """The interval whose letters fit a phrase best; it finds names that no recognizer has in its vocabulary.

    The best path through the output of the model begins and ends anywhere, as in keyword spotting. Source: Kürzinger et
    al. 2020, CTC-Segmentation of Large Corpora for German End-to-end Speech Recognition, Section 2. Deviation: a frame
    costs the difference from its most probable token, so that what is around the phrase costs nothing.
    """

    Config = CtcGrounderConfig
    config: CtcGrounderConfig
    medium = "audio"
    model_class = "AutoModelForCTC"

    def load_weights(self) -> None:
        """Load the checkpoint; raise UmieError if it is not one of a CTC model with a processor and all its weights."""
        _, processor = self._model
        if not hasattr(processor, "feature_extractor") or not hasattr(processor, "tokenizer"):
            raise UmieError(
                f"checkpoint {self.config.checkpoint}: has no processor with a tokenizer, which a CTC model needs"
            )

    def find(self, source: SoundSource, phrases: Sequence[str], known: Sequence[Segment] = ()) -> list[list[Segment]]:
        """Return the segment that says each phrase, if one does."""
        self.load_weights()
        model, processor = self._model
        rate = processor.feature_extractor.sampling_rate
        sound = open_sound(source, rate)
        log_probs = self._log_probs(sound.samples, rate)
        second = sound.seconds / len(log_probs)  # of a frame
        found = []
        for phrase in phrases:
            best = align(log_probs, self._letters(phrase), int(model.config.pad_token_id))
            is_sure = best is not None and best.score >= self.config.min_score
            found.append([Segment((best.first * second, best.end * second), phrase)] if best and is_sure else [])
        return found

    def _log_probs(self, samples: NDArray[np.float32], rate: int) -> NDArray[np.float64]:
        """Return the log-probabilities of the tokens, ``[frames, tokens]``."""
        model, processor = self._model
        parts = []
        for window in windows(samples, rate):
            inputs = processor.feature_extractor(window, sampling_rate=rate, return_tensors="pt").to(model.device)
            with torch.inference_mode():
                parts.append(model(**inputs).logits[0].float().log_softmax(-1).cpu())
        return torch.cat(parts).double().numpy()

    def _letters(self, phrase: str) -> list[int]:
        """Return the tokens of a phrase, in the case that the vocabulary has; what it cannot write is left out."""
        tokenizer = self._model[1].tokenizer
        forms = [
            tokenizer(form, add_special_tokens=False).input_ids for form in (phrase, phrase.upper(), phrase.lower())
        ]
        left_out = {tokenizer.unk_token_id, tokenizer.pad_token_id}
        return max(([token for token in form if token not in left_out] for form in forms), key=len)


def align(log_probs: NDArray[np.float64], tokens: Sequence[int], blank: int) -> Aligned | None:
    """Return where tokens fit best, with any beginning and end; None without tokens, or if there are too few frames.

    Args:
        log_probs: ``[frames, tokens]``.
        tokens: the tokens in order; blanks may be between them, and must be between two equal ones.
        blank: the blank of CTC.
    """
    if not tokens:
        return None
    states = [tokens[0], *(one for token in tokens[1:] for one in (blank, token))]
    costs = (log_probs.max(1, keepdims=True) - log_probs)[:, states]  # [frames, states], of 0 or more
    may_skip = np.zeros(len(states), dtype=bool)  # from one token to the next
    may_skip[2::2] = [one != other for one, other in pairwise(tokens)]
    total = np.full(len(states), math.inf)
    first = np.zeros(len(states), dtype=np.int64)
    best, best_cost = None, math.inf
    for frame, cost in enumerate(costs):
        moved, skipped = np.full(len(states), math.inf), np.full(len(states), math.inf)
        moved[1:], skipped[2:] = total[:-1], total[:-2]
        skipped[~may_skip] = math.inf
        options = np.stack([total, moved, skipped])
        choice = options.argmin(0)
        origins = np.stack([first, np.roll(first, 1), np.roll(first, 2)])
        total, first = np.take_along_axis(options, choice[None], 0)[0], np.take_along_axis(origins, choice[None], 0)[0]
        if total[0] > 0:  # a later beginning is cheaper
            total[0], first[0] = 0.0, frame
        total = total + cost
        if total[-1] < best_cost or (best is not None and total[-1] == best_cost and first[-1] == best[0]):
            best, best_cost = (int(first[-1]), frame + 1), float(total[-1])
    if best is None:
        return None
    return Aligned(*best, math.exp(-best_cost / (best[1] - best[0])))
