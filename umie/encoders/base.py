"""The encoder contract, in two halves: images to tensors (data workers), tensors to VisualFeatures."""

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

from umie.encoders.images import ImageSource, open_image
from umie.errors import UmieError, check_flag, check_whole, shown
from umie.records import Box, Region
from umie.types import VisualFeatures

WHOLE_IMAGE: Box = (0.0, 0.0, 1.0, 1.0)


@dataclass(frozen=True, kw_only=True)
class EncoderConfig:
    """Options that every encoder has.

    Args:
        max_regions: regions beyond this number are left out (the paper takes 36).
        trainable: whether training changes the encoder's weights.
    """

    FINGERPRINT_EXCLUDE: ClassVar[frozenset[str]] = frozenset({"max_regions", "trainable"})

    max_regions: int = 36
    trainable: bool = True

    @property
    def has_random_weights(self) -> bool:
        """Whether the encoder would have weights from elsewhere, and names none."""
        return any(getattr(self, name, "") is None for name in ("weights", "pretrained"))

    def __post_init__(self) -> None:
        check_whole("max_regions", self.max_regions, 0)
        check_flag("trainable", self.trainable)


class Preprocessor(ABC):
    """Images and regions to the tensors that the encoder's forward takes; holds no weights, pickles."""

    def __init__(self, config: Any) -> None:
        self.config = config

    @abstractmethod
    def tensors(self, image: Image.Image, boxes: Sequence[Box]) -> dict[str, Tensor]:
        """Return the encoder's own inputs for one image and its slots (slot 0 is the whole image)."""

    @abstractmethod
    def no_tensors(self) -> dict[str, Tensor]:
        """Return the same inputs for a record without an image: empty along every dimension that pads."""

    def one(self, image: ImageSource | None, regions: Sequence[Region | Box] = ()) -> dict[str, Tensor]:
        """Return the tensors of one image: ``boxes [V, 4]``, ``visual_mask [V]`` and the encoder's own.

        Args:
            image: PIL image or path; None gives no slot at all (V = 0).
            regions: relative boxes, x1, y1, x2, y2 in 0..1; those beyond ``max_regions`` are left out.

        Raises:
            UmieError: the image cannot be read, or a box leaves it.
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
        """Return the boxes of an image's slots: the whole image, then its regions, at most ``max_regions``.

        Raises:
            UmieError: a box leaves the image, has no area, or is not four finite numbers.
        """
        try:
            return [
                WHOLE_IMAGE,
                *((r if isinstance(r, Region) else Region(r)).box for r in list(regions)[: self.config.max_regions]),
            ]
        except TypeError as error:
            raise UmieError(
                f"regions is {shown(regions)}: give a list of boxes [x1, y1, x2, y2] for each image, [] for none"
            ) from error

    def check(self, image: ImageSource, regions: Sequence[Region | Box] = ()) -> None:
        """Raise UmieError where ``one`` would; an encoder that does not look at pixels looks for what it needs."""
        self.slots(regions)
        open_image(image)

    def __call__(
        self, images: Sequence[ImageSource | None], regions: Sequence[Sequence[Region | Box]] | None = None
    ) -> dict[str, Tensor]:
        """Return the batched, padded tensors of several images; see ``one``."""
        if isinstance(images, str | Path | Image.Image):
            raise UmieError("images is one image: give a list of images, and of each the list of its regions")
        regions = [()] * len(images) if regions is None else regions
        if len(regions) != len(images):
            raise UmieError(f"{len(regions)} lists of regions for {len(images)} images: give one for each")
        return collate([self.one(image, boxes) for image, boxes in zip(images, regions, strict=True)])


class VisualEncoder(nn.Module, ABC):
    """Turns an image and its regions into features; ``encode`` is ``preprocess`` and ``forward`` together."""

    Config: ClassVar[type[EncoderConfig]]
    is_lookup: ClassVar[bool] = False  # True: features are read, not made, and need no cache
    Preprocessor: ClassVar[type[Preprocessor]]

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.config = config
        self.preprocess = self.Preprocessor(config)

    @property
    @abstractmethod
    def feature_dim(self) -> int:
        """Width Dv of the features."""

    @abstractmethod
    def features(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """Return ``[B, V, Dv]`` from the preprocessed tensors; what stands in padding slots does not matter."""

    def train(self, mode: bool = True) -> Self:
        """Set the mode; a frozen encoder stays frozen (transformers unfreezes what it loads, then calls this)."""
        super().train(mode)
        if not self.config.trainable:
            self.requires_grad_(False)
        return self

    def load_weights(self) -> None:
        """Load the weights that the configuration names; does nothing where there are none to load.

        The constructor only shapes the module, so that a saved model can be rebuilt without them.
        """

    def saved_options(self) -> dict[str, Any]:
        """Return the options that a saved model keeps beside those it was given: what a file told once."""
        return {}

    def fingerprint(self) -> str:
        """Return a hash of all that the features depend on beside image and boxes: options, weights, own code.

        Two encoders with one fingerprint give the same features, up to the rounding of another device or release
        of torch. It costs one pass over the weights.
        """
        options = dataclasses.asdict(self.config)
        kept = {name: value for name, value in options.items() if name not in self.config.FINGERPRINT_EXCLUDE}
        what = [_code_of(type(self)), _code_of(self.Preprocessor), kept]
        digest = hashlib.sha256(json.dumps(what, sort_keys=True, default=list).encode())
        for name, tensor in sorted(self.state_dict().items()):
            digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
            digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
        return digest.hexdigest()[:32]

    def forward(self, **inputs: Tensor) -> VisualFeatures:
        """Turn the tensors of ``preprocess`` into features; padding slots are zero.

        Args:
            inputs: what ``preprocess`` returned: ``boxes [B, V, 4]``, ``visual_mask [B, V]`` and the rest.
        """
        mask, boxes = inputs["visual_mask"], inputs["boxes"]
        parameter = next(self.parameters(), None)
        if parameter is not None:  # images come in float32, whatever the precision of the weights
            inputs = {
                name: value.to(parameter.dtype) if value.is_floating_point() and name != "boxes" else value
                for name, value in inputs.items()
            }
        features = self.features(inputs) if mask.numel() else inputs["boxes"].new_zeros(*mask.shape, self.feature_dim)
        features = features.masked_fill(~mask[..., None], 0)
        return VisualFeatures(features, boxes, mask)

    def encode(
        self, images: Sequence[ImageSource | None], regions: Sequence[Sequence[Region | Box]] | None = None
    ) -> VisualFeatures:
        """Return the features of images with their regions.

        Args:
            images: PIL images or paths; None stands for no image.
            regions: for each image its relative boxes (x1, y1, x2, y2 in 0..1); none by default.

        Raises:
            UmieError: an image cannot be read, or a box leaves it.
        """
        parameter = next(self.parameters(), None)
        device = parameter.device if parameter is not None else torch.device("cpu")
        features: VisualFeatures = self(
            **{name: value.to(device) for name, value in self.preprocess(images, regions).items()}
        )
        return features


def _code_of(part: type) -> list[str]:
    """Return a class's name, and for one from outside this project its code too, which changes without a release."""
    name = [part.__module__, part.__qualname__]
    if part.__module__.split(".")[0] == __name__.split(".")[0]:
        return name[1:]
    try:
        return [*name, inspect.getsource(part)]
    except (OSError, TypeError):  # typed into an interpreter
        return name


def no_slots() -> dict[str, Tensor]:
    """Return the boxes and the mask of a record without an image: no slot at all."""
    return {"boxes": torch.zeros(0, 4), "visual_mask": torch.zeros(0, dtype=torch.bool)}


def collate(items: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Stack the tensors of several records, padded with zeros (False) to the largest size of each dimension."""
    return {name: pad_stack([item[name] for item in items]) for name in items[0]}


def pad_stack(tensors: Sequence[Tensor], value: float = 0) -> Tensor:
    """Stack tensors of one rank, padded with ``value`` at the end of each dimension."""
    shape = [max(sizes) for sizes in zip(*(tensor.shape for tensor in tensors), strict=True)]
    stacked = tensors[0].new_full((len(tensors), *shape), value)
    for row, tensor in zip(stacked, tensors, strict=True):
        row[tuple(slice(size) for size in tensor.shape)] = tensor
    return stacked
