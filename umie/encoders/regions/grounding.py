"""`grounding`: a zero-shot detector of transformers that searches for the noun phrases of the text."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from umie.encoders.regions import registry
from umie.encoders.regions.base import Candidates, PixelProposer, ProposerConfig, check_device, clamp_aspect_ratio
from umie.encoders.regions.phrases import MAX_PHRASES, noun_phrases
from umie.errors import UmieError, check_whole, shown

Phrases = Callable[[str], Sequence[str]] | Sequence[str] | None

FAMILIES = ("grounding-dino", "mm-grounding-dino", "omdet-turbo", "owlv2", "owlvit")
DINO = FAMILIES[:2]  # these read all phrases as one text and score its tokens


@dataclass(frozen=True, kw_only=True)
class GroundingProposerConfig(ProposerConfig):
    """Options of the zero-shot detectors.

    Args:
        checkpoint: a directory written by ``save_pretrained``, or a hub name: OWL-ViT, OWLv2, Grounding DINO, MM
            Grounding DINO or OmDet-Turbo.
        phrases: the phrases to search for: a function of the text, or a list for all images; None uses the text's noun
            phrases.
        max_phrases: maximum number of phrases per text.
        min_score: see ProposerConfig; the default suits OWL-ViT and OWLv2; use about 0.25 for Grounding DINO.
        device: where the detector runs, e.g. "cuda".
    """

    checkpoint: str | None = None
    phrases: Phrases = None
    max_phrases: int = MAX_PHRASES
    min_score: float = 0.1
    device: str = "cpu"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.checkpoint, str) or not self.checkpoint:
            raise UmieError(
                f"checkpoint is {shown(self.checkpoint)}: use the directory of a zero-shot detector, or its name on "
                "the hub, e.g. google/owlv2-base-patch16-ensemble"
            )
        if self.phrases is not None and not callable(self.phrases):
            _check_phrases(self.phrases)
        check_whole("max_phrases", self.max_phrases, 1)
        check_device(self.device)


@registry.register("grounding")
class GroundingProposer(PixelProposer):
    """A zero-shot object detector; each box is labeled with its best-matching phrase.

    A text without phrases has no proposals.

    Source: Minderer et al. 2022 and 2023 (OWL-ViT, OWLv2), Liu et al. 2023 (Grounding DINO), Zhao et al. 2024 (MM
    Grounding DINO, OmDet-Turbo), as implemented in transformers. Deviation: the score of a Grounding DINO box is that
    of a phrase's best token; the periods between phrases do not count.
    """

    Config = GroundingProposerConfig
    config: GroundingProposerConfig
    reads_text = True

    def load_weights(self) -> None:
        """Load the checkpoint; raise UmieError if it is not one of a zero-shot detector with all its weights."""
        _ = self._detector

    def phrases(self, text: str | None) -> list[str]:
        """Return at most ``max_phrases`` phrases to search for; raise UmieError if a text is needed and is None."""
        given = self.config.phrases
        if given is None or callable(given):
            if text is None:
                raise UmieError("grounding searches for phrases of a text: pass a text per image, or set phrases")
            given = noun_phrases(text, self.config.max_phrases) if given is None else given(text)
            _check_phrases(given)
        stripped = (" ".join(phrase.split()) for phrase in given)
        distinct = dict.fromkeys(phrase for phrase in stripped if any(map(str.isalnum, phrase)))
        return list(distinct)[: self.config.max_phrases]

    def _candidates(self, image: Image.Image, text: str | None) -> Candidates:
        phrases = self.phrases(text)
        if not phrases:
            self.counts["texts without phrases"] += 1
            return Candidates()
        return self._searched(image, phrases)

    def search(self, image: Image.Image, phrases: Sequence[str]) -> list[Candidates]:
        """Return the boxes that are found for each phrase, whatever the options say about phrases."""
        stripped = [" ".join(phrase.split()) for phrase in phrases]
        distinct = list(dict.fromkeys(phrase for phrase in stripped if any(map(str.isalnum, phrase))))
        found: dict[str, list[tuple[Tensor, Tensor]]] = {phrase: [] for phrase in distinct}
        for start in range(0, len(distinct), MAX_PHRASES):  # more than the detectors read at once
            candidates = self._searched(image, distinct[start : start + MAX_PHRASES])
            for box, score, label in zip(candidates.boxes, candidates.scores, candidates.labels, strict=True):
                found[str(label)].append((box, score))
        return [_of_phrase(phrase, found.get(phrase, [])) for phrase in stripped]

    def _searched(self, image: Image.Image, phrases: Sequence[str]) -> Candidates:
        model, processor = self._detector
        find = _by_token if model.config.model_type in DINO else _by_phrase
        with torch.inference_mode():
            return find(model, processor, clamp_aspect_ratio(image), phrases)

    @cached_property
    def _detector(self) -> tuple[Any, Any]:
        from transformers import AutoModelForZeroShotObjectDetection

        from umie.language_models.sources import check_loaded, load_with_processor

        name = str(self.config.checkpoint)
        families = ", ".join(FAMILIES)
        advice = f"a directory with a zero-shot detector and its processor ({families}), written by save_pretrained"
        model, processor, missing = load_with_processor(AutoModelForZeroShotObjectDetection, name, advice)
        if model.config.model_type not in FAMILIES:
            raise UmieError(f"checkpoint {name}: is {model.config.model_type!r}: use one of {', '.join(FAMILIES)}")
        check_loaded(model, name, missing)
        return model.float().to(self.config.device).eval(), processor


def _of_phrase(phrase: str, found: Sequence[tuple[Tensor, Tensor]]) -> Candidates:
    if not found:
        return Candidates()
    boxes, scores = zip(*found, strict=True)
    return Candidates(torch.stack(boxes), torch.stack(scores), [phrase] * len(found))


def _by_phrase(model: Any, processor: Any, image: Image.Image, phrases: Sequence[str]) -> Candidates:
    """Return the boxes of a detector that scores each box for each phrase: OWL-ViT, OWLv2, OmDet-Turbo."""
    width, height = image.size
    # long phrases are truncated: the text towers accept 16 tokens (OWL) or 77
    inputs = processor(images=image, text=[list(phrases)], return_tensors="pt", truncation=True).to(model.device)
    options: Mapping[str, Any] = {"nms_threshold": 1.0} if model.config.model_type == "omdet-turbo" else {}
    (found,) = processor.post_process_grounded_object_detection(
        model(**inputs), text_labels=[list(phrases)], threshold=0.0, target_sizes=[(height, width)], **options
    )
    boxes = found["boxes"].cpu() / torch.tensor([width, height, width, height])
    return Candidates(boxes, found["scores"].cpu(), found["text_labels"])


def _by_token(model: Any, processor: Any, image: Image.Image, phrases: Sequence[str]) -> Candidates:
    """Return the boxes of a detector that scores each box for each token of "a cat. a red bus.": Grounding DINO."""
    # periods separate the phrases, so they must not contain any
    texts = [" ".join(phrase.replace(".", " ").split()) for phrase in phrases]
    inputs = processor(
        images=image, text=[texts], return_tensors="pt", truncation=True, max_length=model.config.max_text_len
    ).to(model.device)
    spans = _spans(inputs["input_ids"][0].tolist(), processor.tokenizer)
    # without the phrases that were truncated
    whole = [(phrase, span) for phrase, span in zip(phrases, spans, strict=False) if span]
    if not whole:
        return Candidates()
    output = model(**inputs)
    probabilities = output.logits[0].sigmoid()  # [queries, tokens]
    scores: Tensor = torch.stack([probabilities[:, span].amax(1) for _, span in whole], 1)  # [queries, phrases]
    best, which = scores.max(1)
    center, size = output.pred_boxes[0].chunk(2, 1)
    boxes = torch.cat([center - size / 2, center + size / 2], 1)
    return Candidates(boxes.cpu(), best.cpu(), [whole[index][0] for index in which.tolist()])


def _spans(tokens: Sequence[int], tokenizer: Any) -> list[list[int]]:
    """Return the positions of each phrase's tokens; phrases end with a period."""
    period = tokenizer.convert_tokens_to_ids(".")
    spans: list[list[int]] = [[]]
    for position, token in enumerate(tokens):
        if token == period:
            spans.append([])
        elif token not in tokenizer.all_special_ids or token == tokenizer.unk_token_id:
            spans[-1].append(position)
    return spans


def _check_phrases(phrases: object) -> None:
    if not isinstance(phrases, list | tuple) or not all(isinstance(phrase, str) for phrase in phrases):
        raise UmieError(f"phrases is {shown(phrases)}: use a list of strings, e.g. [person, car]")
