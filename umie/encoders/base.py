"""The encoder contract: a VisualEncoder turns the tensors of its preprocessor into features."""

from __future__ import annotations

import dataclasses
import hashlib
import inspect
import json
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from umie.encoders.preprocessing import (
    GEOMETRY,
    WHOLE_IMAGE,
    AudioPreprocessor,
    MediaPreprocessor,
    Preprocessor,
    VideoPreprocessor,
    boxes_at,
    collate,
    no_slots,
    pad_stack,
    steps_of,
)
from umie.errors import check_flag, check_whole
from umie.records import Medium
from umie.types import NUM_STEPS, VisualFeatures, bool_mask

__all__ = [
    "NUM_STEPS",
    "WHOLE_IMAGE",
    "AudioPreprocessor",
    "EncoderConfig",
    "MediaPreprocessor",
    "Preprocessor",
    "VideoPreprocessor",
    "VisualEncoder",
    "WeightsOption",
    "boxes_at",
    "collate",
    "no_slots",
    "pad_stack",
    "steps_of",
]


class WeightsOption:
    """A config whose class names the option that holds pretrained weights, if there is one."""

    weights_option: ClassVar[str | None] = None

    @property
    def weights_source(self) -> str | None:
        """The pretrained weights that are specified, if any."""
        return None if self.weights_option is None else getattr(self, self.weights_option)

    @property
    def has_random_weights(self) -> bool:
        """Whether pretrained weights can be loaded and none are specified."""
        return self.weights_option is not None and self.weights_source is None


@dataclass(frozen=True, kw_only=True)
class EncoderConfig(WeightsOption):
    """Options that every encoder has.

    Args:
        max_regions: regions, tracks or segments beyond this number are ignored (the paper uses 36).
        trainable: whether training updates the encoder's weights.
    """

    FINGERPRINT_EXCLUDE: ClassVar[frozenset[str]] = frozenset({"max_regions", "trainable"})

    max_regions: int = 36
    trainable: bool = True

    def identity(self) -> dict[str, Any]:
        """Return the options that features depend on."""
        options = dataclasses.asdict(self)
        return {name: value for name, value in options.items() if name not in self.FINGERPRINT_EXCLUDE}

    def __post_init__(self) -> None:
        check_whole("max_regions", self.max_regions, 0)
        check_flag("trainable", self.trainable)


class VisualEncoder(nn.Module, ABC):
    """Turns images and their regions into features; ``encode`` combines ``preprocess`` and ``forward``.

    With an AudioPreprocessor it encodes sounds and their segments, with a VideoPreprocessor clips and their tracks.
    """

    Config: ClassVar[type[EncoderConfig]]
    Preprocessor: ClassVar[type[MediaPreprocessor]]
    reads_features: ClassVar[bool] = False  # True: features are read from files, not computed, and need no cache

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.config = config
        self.preprocess: Any = self.Preprocessor(config)

    @property
    def medium(self) -> Medium:
        """The medium that the encoder sees or hears."""
        preprocessor: MediaPreprocessor = self.preprocess
        return preprocessor.medium

    @property
    def feature_dim(self) -> int:
        """Width Dv of the features; by default the config's ``feature_dim``."""
        config: Any = self.config
        return int(config.feature_dim)

    @abstractmethod
    def features(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """Return ``[B, V, Dv]`` from the preprocessed tensors; values in padding slots are ignored."""

    def train(self, mode: bool = True) -> Self:
        """Set the mode; a frozen encoder stays frozen (transformers unfreezes loaded models, then calls this)."""
        super().train(mode)
        if not self.config.trainable:
            self.requires_grad_(False)
        return self

    def load_weights(self) -> None:
        """Load the weights that the configuration specifies, if any.

        The constructor does not, so that a saved model can be rebuilt without its original weight files.
        """

    def saved_options(self) -> dict[str, Any]:
        """Return options to save with the model in addition to its config, such as values read from a file."""
        return {}

    def fingerprint(self) -> str:
        """Return a hash of everything features depend on except image and boxes: options, weights, a plugin's code.

        Two encoders with the same fingerprint give the same features, up to rounding differences between devices or
        releases of torch. Computing it reads all weights once, or for an encoder with ``reads_features`` no weights.
        """
        if self.reads_features:
            return str(self.preprocess.fingerprint())
        parts = [code_of(type(self)), code_of(self.Preprocessor), self.config.identity()]
        digest = hashlib.sha256(json.dumps(parts, sort_keys=True, default=list).encode())
        hash_tensors(digest, self.state_dict())
        return digest.hexdigest()[:32]

    def forward(self, **inputs: Tensor) -> VisualFeatures:
        """Turn the tensors of ``preprocess`` into features, zero where ``visual_mask [B, V]`` is False (padding).

        Among them are ``boxes [B, V, 4]``, and ``spans`` and ``paths`` of sounds and clips, which are returned with the
        features.
        """
        mask, boxes = bool_mask("visual_mask", inputs["visual_mask"]), inputs["boxes"]
        inputs["visual_mask"] = mask
        parameter = next(self.parameters(), None)
        if parameter is not None:  # images are float32, whatever the precision of the weights
            inputs = {
                name: value.to(parameter.dtype) if value.is_floating_point() and name not in GEOMETRY else value
                for name, value in inputs.items()
            }
        features = self.features(inputs) if mask.numel() else boxes.new_zeros(*mask.shape, self.feature_dim)
        features = features.masked_fill(~mask[..., None], 0)
        return VisualFeatures(features, boxes, mask, inputs.get("spans"), inputs.get("paths"))

    def encode(self, sources: Sequence[Any], places: Sequence[Sequence[Any]] | None = None) -> VisualFeatures:
        """Return the features of images, clips or sounds, each with its places; see ``MediaPreprocessor.one``."""
        parameter = next(self.parameters(), None)
        device = torch.device("cpu") if parameter is None else parameter.device
        inputs = self.preprocess(sources, places)
        features: VisualFeatures = self(**{name: value.to(device) for name, value in inputs.items()})
        return features


def code_of(part: type) -> list[str]:
    """Return a class's name and, for a class from outside this package, its source, which can change at any time."""
    if part.__module__.split(".")[0] == __name__.split(".")[0]:
        return [part.__qualname__]
    name = [part.__module__, part.__qualname__]
    try:
        return [*name, inspect.getsource(part)]
    except (OSError, TypeError):  # defined in an interactive interpreter
        return name


def hash_tensors(digest: Any, tensors: Mapping[str, Tensor]) -> None:
    """Add names, types, shapes and values of tensors to a hash of hashlib."""
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())


@contextmanager
def in_evaluation_mode(module: nn.Module) -> Iterator[None]:
    """Set a module to evaluation mode; afterwards each of its parts has its own mode again."""
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for part, mode in modes:
            part.training = mode
