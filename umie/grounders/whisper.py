"""`whisper`: where speech says a phrase, by the words that Whisper hears and their times."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from functools import cached_property
from math import inf
from pathlib import Path
from typing import Any, NamedTuple

from umie.errors import UmieError, shown
from umie.grounders import registry
from umie.grounders.base import CheckpointGrounderConfig, ModelGrounder
from umie.grounders.windows import WINDOW_S, windows
from umie.language_models.sources import no_warnings
from umie.media import SoundSource, open_sound
from umie.records import Segment

MAX_TOKENS = 200  # of the words of a window; Whisper has positions for 448
KNOWN_SOUNDS = 16  # whose words are remembered


@dataclass(frozen=True, kw_only=True)
class WhisperGrounderConfig(CheckpointGrounderConfig):
    """Options of the recognizer.

    Args:
        checkpoint: the directory or hub name of a Whisper model with its processor.
        min_score: how alike (0..1) the letters of the phrase and of what was heard are: twice the number of letters in
            common blocks, as difflib finds them, divided by the number of letters of both.
        device: where the model runs, e.g. "cuda".
    """

    kind = "a Whisper model"
    example = "openai/whisper-tiny.en"

    min_score: float = 0.6


class Heard(NamedTuple):
    """A word, and its seconds."""

    letters: str
    start: float
    end: float


@registry.register("whisper")
class WhisperGrounder(ModelGrounder):
    """The words that sound like a phrase, as a recognizer spells them: "citi field" for *Citifield*.

    The words of the last files are remembered, so that a file is recognized once for several tasks. Words and their
    times are those of the pipeline of transformers (the attention of some heads of the decoder, aligned by dynamic time
    warping). Source: Radford et al. 2023, Robust Speech Recognition via Large-Scale Weak Supervision.
    """

    Config = WhisperGrounderConfig
    config: WhisperGrounderConfig
    medium = "audio"
    model_class = "WhisperForConditionalGeneration"

    def __init__(self, config: WhisperGrounderConfig) -> None:
        super().__init__(config)
        self._words: dict[str, list[Heard]] = {}  # by file

    def load_weights(self) -> None:
        """Load the checkpoint; raise UmieError if it is not one of Whisper that can tell the times of words."""
        _ = self._recognizer

    @cached_property
    def _recognizer(self) -> Any:
        from transformers import AutomaticSpeechRecognitionPipeline

        model, processor = self._model
        layers, heads = model.config.decoder_layers, model.config.decoder_attention_heads
        given = getattr(model.generation_config, "alignment_heads", None)
        pairs = given if isinstance(given, list) else []
        known = [pair for pair in pairs if pair in [[layer, head] for layer in range(layers) for head in range(heads)]]
        if not known or known != given:
            raise UmieError(
                f"checkpoint {self.config.checkpoint}: alignment_heads in its generation_config.json is {shown(given)}"
                ": use the [layer, head] pairs of this model whose attention follows the words, or another one"
            )
        model.set_attn_implementation("eager")  # the only one whose attention can be read
        model.generation_config.max_length = None  # the tokens that a window may have are said below
        return AutomaticSpeechRecognitionPipeline(
            model, tokenizer=processor.tokenizer, feature_extractor=processor.feature_extractor, device=model.device
        )

    def find(self, source: SoundSource, phrases: Sequence[str], known: Sequence[Segment] = ()) -> list[list[Segment]]:
        """Return the segments that say each phrase; ``known`` is not used."""
        key = str(source) if isinstance(source, str | Path) else None
        if key is None or (words := self._words.get(key)) is None:
            words = list(self._heard(source))
        if key is not None:
            self._words[key] = words
            while len(self._words) > KNOWN_SOUNDS:
                del self._words[next(iter(self._words))]
        return [
            [Segment(interval, phrase) for interval in alike(words, phrase, self.config.min_score, self.config.top)]
            for phrase in phrases
        ]

    def _heard(self, source: SoundSource) -> Iterator[Heard]:
        rate = self._recognizer.feature_extractor.sampling_rate
        sound = open_sound(source, rate)
        for number, samples in enumerate(windows(sound.samples, rate)):
            with no_warnings():
                answer = self._recognizer(
                    {"raw": samples, "sampling_rate": rate},
                    return_timestamps="word",
                    generate_kwargs={"max_new_tokens": MAX_TOKENS},
                )
            offset = number * WINDOW_S
            for chunk in answer["chunks"]:
                start, end = chunk["timestamp"]
                end = min(sound.seconds, offset + (len(samples) / rate if end is None else end))
                if end > offset + start:
                    yield Heard(_letters(chunk["text"]), offset + start, end)


def alike(words: Sequence[Heard], phrase: str, min_score: float, top: int = 1) -> list[tuple[float, float]]:
    """Return the intervals of words that are most like a phrase, best first, none of which overlap.

    Args:
        words: what is heard, in order.
        phrase: what is looked for.
        min_score: the lowest similarity, 0..1; see ``WhisperGrounderConfig``.
        top: the most intervals.
    """
    letters = _letters(phrase)
    wanted = SequenceMatcher(None, "", letters, autojunk=False)
    longest = len(letters) * (2 / min_score - 1) if min_score else inf  # more letters can never be alike enough
    found = []
    for first in range(len(words)):
        heard = ""
        for end in range(first, len(words) if words[first].letters else first):
            heard += words[end].letters
            if len(heard) > longest:
                break
            wanted.set_seq1(heard)
            if not words[end].letters or min(wanted.real_quick_ratio(), wanted.quick_ratio()) < min_score:
                continue  # both are upper bounds
            if (score := wanted.ratio()) >= min_score:
                found.append((-score, first, end))
    chosen: list[tuple[int, int]] = []
    for _, first, end in sorted(found):
        if len(chosen) < top and all(end < one or other < first for one, other in chosen):
            chosen.append((first, end))
    return [(words[first].start, words[end].end) for first, end in chosen]


def _letters(text: str) -> str:
    """Return the letters and digits of a text, without case and accents."""
    return "".join(letter for letter in unicodedata.normalize("NFKD", text).casefold() if letter.isalnum())
