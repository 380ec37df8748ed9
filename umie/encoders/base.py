"""The encoder contract: a Preprocessor (images to tensors) and a VisualEncoder (tensors to features)."""

from __future__ import annotations

import dataclasses
import hashlib
import inspect
import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from PIL import Image
from torch import Tensor, nn

from umie.errors import UmieError, check_flag, check_whole, shown
from umie.images import ImageSource, open_image
from umie.records import Box, Region
from umie.types import VisualFeatures, bool_mask

WHOLE_IMAGE: Box = (0.0, 0.0, 1.0, 1.0)


class WeightsOption:
    """A config whose class names the option that holds pretrained weights, if there is one."""

    weights_option: ClassVar[str | None] = None

    @property
    def has_random_weights(self) -> bool:
        """Whether pretrained weights can be loaded and none are specified."""
        return self.weights_option is not None and getattr(self, self.weights_option) is None


@dataclass(frozen=True, kw_only=True)
class EncoderConfig(WeightsOption):
    """Options that every encoder has.

    Args:
        max_regions: regions beyond this number are ignored (the paper uses 36).
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


class Preprocessor(ABC):
    """Turns images and regions into the inputs of the encoder's forward; holds no weights and can be pickled."""

    def __init__(self, config: Any) -> None:
        self.config = config

    def fingerprint(self) -> str:
        """Return a hash of the options and files that features are read from, for encoders with ``reads_features``."""
        raise NotImplementedError(f"{type(self).__name__} reads no features")

    @abstractmethod
    def tensors(self, image: Image.Image, boxes: Sequence[Box]) -> dict[str, Tensor]:
        """Return the encoder-specific inputs for an image and its slots (slot 0 is the whole image)."""

    @abstractmethod
    def no_tensors(self) -> dict[str, Tensor]:
        """Return the same inputs for a record without an image: size 0 along every padded dimension."""

    def one(self, image: ImageSource | None, regions: Sequence[Region | Box] = ()) -> dict[str, Tensor]:
        """Return the tensors of one image: ``boxes [V, 4]``, ``visual_mask [V]`` and those of ``tensors``.

        An image of None gives no slots (V = 0). Regions are relative boxes, x1, y1, x2, y2 in 0..1; those beyond
        ``max_regions`` are ignored.

        Raises:
            UmieError: the image cannot be read, or a box is invalid.
        """
        if image is None:
            return {**no_slots(), **self.no_tensors()}
        boxes = self.slots(regions)
        return {
            "boxes": torch.tensor(boxes),
            "visual_mask": torch.ones(len(boxes), dtype=torch.bool),
            **self.tensors(open_image(image), boxes),
        }

    def slots(self, regions: Sequence[Region | Box]) -> list[Box]:
        """Return the boxes of an image's slots: the whole image, then its regions, at most ``max_regions``."""
        try:
            used = list(regions)[: self.config.max_regions]
            return [WHOLE_IMAGE, *((item if isinstance(item, Region) else Region(item)).box for item in used)]
        except TypeError as error:
            raise UmieError(
                f"regions is {shown(regions)}: pass a list of boxes [x1, y1, x2, y2] for each image, [] for none"
            ) from error

    def check(self, image: ImageSource, regions: Sequence[Region | Box] = ()) -> None:
        """Raise UmieError where ``one`` would, without computing its result."""
        self.slots(regions)
        open_image(image)

    def __call__(
        self, images: Sequence[ImageSource | None], regions: Sequence[Sequence[Region | Box]] | None = None
    ) -> dict[str, Tensor]:
        """Return the batched, padded tensors of several images; see ``one``."""
        if isinstance(images, str | Path | Image.Image):
            raise UmieError("images is a single image: pass a list of images and a list of regions for each")
        regions = [()] * len(images) if regions is None else regions
        if len(regions) != len(images):
            raise UmieError(f"{len(regions)} lists of regions for {len(images)} images: pass one for each image")
        return collate([self.one(image, boxes) for image, boxes in zip(images, regions, strict=True)])


class VisualEncoder(nn.Module, ABC):
    """Turns images and their regions into features; ``encode`` combines ``preprocess`` and ``forward``."""

    Config: ClassVar[type[EncoderConfig]]
    Preprocessor: ClassVar[type[Preprocessor]]
    reads_features: ClassVar[bool] = False  # True: features are read from files, not computed, and need no cache

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.config = config
        self.preprocess = self.Preprocessor(config)

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
            return self.preprocess.fingerprint()
        parts = [_code_of(type(self)), _code_of(self.Preprocessor), self.config.identity()]
        digest = hashlib.sha256(json.dumps(parts, sort_keys=True, default=list).encode())
        for name, tensor in sorted(self.state_dict().items()):
            digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
            digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
        return digest.hexdigest()[:32]

    def forward(self, **inputs: Tensor) -> VisualFeatures:
        """Turn the tensors of ``preprocess`` into features, zero where ``visual_mask [B, V]`` is False (padding).

        Among them are ``boxes [B, V, 4]``, which are returned with the features.
        """
        mask, boxes = bool_mask("visual_mask", inputs["visual_mask"]), inputs["boxes"]
        inputs["visual_mask"] = mask
        parameter = next(self.parameters(), None)
        if parameter is not None:  # images are float32, whatever the precision of the weights
            inputs = {
                name: value.to(parameter.dtype) if value.is_floating_point() and name != "boxes" else value
                for name, value in inputs.items()
            }
        features = self.features(inputs) if mask.numel() else boxes.new_zeros(*mask.shape, self.feature_dim)
        return VisualFeatures(features.masked_fill(~mask[..., None], 0), boxes, mask)

    def encode(
        self, images: Sequence[ImageSource | None], regions: Sequence[Sequence[Region | Box]] | None = None
    ) -> VisualFeatures:
        """Return the features of images, each with its regions; see ``Preprocessor.one``."""
        parameter = next(self.parameters(), None)
        device = torch.device("cpu") if parameter is None else parameter.device
        inputs = self.preprocess(images, regions)
        features: VisualFeatures = self(**{name: value.to(device) for name, value in inputs.items()})
        return features


def _code_of(part: type) -> list[str]:
    """Return a class's name and, for a class from outside this package, its source, which can change at any time."""
    if part.__module__.split(".")[0] == __name__.split(".")[0]:
        return [part.__qualname__]
    name = [part.__module__, part.__qualname__]
    try:
        return [*name, inspect.getsource(part)]
    except (OSError, TypeError):  # defined in an interactive interpreter
        return name


def no_slots() -> dict[str, Tensor]:
    """Return the boxes and the mask of a record without an image: no slots."""
    return {"boxes": torch.zeros(0, 4), "visual_mask": torch.zeros(0, dtype=torch.bool)}


class NoFeatures:
    """A source of features for a model that does not use the image: no slots, and no image is opened."""

    def one(self, image: object, regions: Sequence[object] = ()) -> dict[str, Tensor]:
        """Return the boxes and the mask of a record without an image."""
        return no_slots()


def collate(items: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Stack the tensors of several records, padded with zeros (False) to the maximum size of each dimension."""
    return {name: pad_stack([item[name] for item in items]) for name in items[0]}


def pad_stack(tensors: Sequence[Tensor], value: float = 0) -> Tensor:
    """Stack tensors of equal rank, padded with ``value`` at the end of each dimension."""
    shape = [max(sizes) for sizes in zip(*(tensor.shape for tensor in tensors), strict=True)]
    stacked = tensors[0].new_full((len(tensors), *shape), value)
    for row, tensor in zip(stacked, tensors, strict=True):
        row[tuple(slice(size) for size in tensor.shape)] = tensor
    return stacked
