"""`resnet101_roi`: the paper's encoder, 2048-dimensional ResNet-101 features of the image and of each region."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

import torch
from PIL import Image
from torch import Tensor, nn
from torchvision.models import ResNet101_Weights, resnet101
from torchvision.transforms.functional import normalize, to_tensor

from umie.encoders import registry
from umie.encoders.roi import Pooling, pool_slots
from umie.encoders.tower import TowerConfig, TowerEncoder, TowerPreprocessor, cut, published_weights
from umie.errors import check_choice, check_keys, check_text, check_whole
from umie.records import Box
from umie.weights import is_file_name, read_state_dict

Mode = Literal["crop", "align"]

STRIDE = 32  # image pixels per cell of the backbone's map
MAX_ASPECT = 4  # align: longer images are squeezed to this aspect ratio, which bounds the size of the map


@dataclass(frozen=True, kw_only=True)
class ResNet101RoiEncoderConfig(TowerConfig):
    """Options of the ResNet-101 encoder.

    Args:
        weights: a torchvision name (IMAGENET1K_V2), a .safetensors, .pth, .pt or .bin file, or None for random weights.
        mode: "crop", as in the paper: one backbone pass per slot, resized to 224 x 224 pixels; "align": one pass over
            the image, whose last map is averaged under each region, which is cheaper and coarser.
        short_side: align only: the image's short side in pixels; the long side keeps the aspect ratio, up to 4 times
            the short side.
        pooling: align only: how the map is averaged under a region. "roi_align" uses the 14 x 14 samples of RoIAlign;
            "precise" uses the integral that they approximate, so that a region covering the whole image has the
            features of the whole image.
    """

    # the weights themselves are hashed, regardless of where they came from
    FINGERPRINT_EXCLUDE: ClassVar[frozenset[str]] = TowerConfig.FINGERPRINT_EXCLUDE | {"weights"}
    weights_option: ClassVar[str | None] = "weights"
    feature_dim: ClassVar[int] = 2048

    weights: str | None = None
    mode: Mode = "crop"
    short_side: int = 320
    pooling: Pooling = "precise"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_text("weights", self.weights)
        check_keys("mode", [self.mode], get_args(Mode))
        check_whole("short_side", self.short_side, STRIDE)
        check_choice("pooling", self.pooling, get_args(Pooling))


class ResNet101RoiPreprocessor(TowerPreprocessor):
    """Prepares images for ImageNet models."""

    MEAN = (0.485, 0.456, 0.406)
    STD = (0.229, 0.224, 0.225)
    own_size = (224, 224)
    resampling = Image.Resampling.BILINEAR

    def tensors(self, image: Image.Image, boxes: Sequence[Box]) -> dict[str, Tensor]:
        """Return the crops of one image (mode "crop") or the whole image ("align")."""
        if self.config.mode == "crop":
            height, width = self.own_size
            return {"crops": torch.stack([self._pixels(cut(image, box), width, height) for box in boxes])}
        short = self.config.short_side or min(self.own_size)
        scale = short / min(image.size)
        width, height = (min(round(side * scale), short * MAX_ASPECT) for side in image.size)
        return {"pixels": self._pixels(image, width, height), "image_size": torch.tensor([height, width])}

    def _pixels(self, image: Image.Image, width: int, height: int) -> Tensor:
        pixels = to_tensor(image.resize((width, height), self.resampling))
        normalized: Tensor = normalize(pixels, self.MEAN, self.STD)
        return normalized


@registry.register("resnet101_roi")
class ResNet101RoiEncoder(TowerEncoder):
    """ResNet-101 up to its global average pooling, over each crop, or once over the image with its regions pooled.

    Random weights start every residual branch at zero; torchvision's default initialization gives features around 1e5.

    Source: UMIE (papers/002), visual encoder: the image and up to 36 regions, 224 x 224. Deviation: mode "align" pools
    all regions from a single map (see ``roi.py``).
    """

    Config = ResNet101RoiEncoderConfig
    Preprocessor = ResNet101RoiPreprocessor
    config: ResNet101RoiEncoderConfig

    def __init__(self, config: ResNet101RoiEncoderConfig) -> None:
        parts = OrderedDict(resnet101(weights=None, zero_init_residual=True).named_children())
        del parts["avgpool"], parts["fc"]
        super().__init__(config, nn.Sequential(parts))

    def load_weights(self) -> None:
        """Load the weights that the configuration specifies; see ``read_state_dict`` and ``published_weights``."""
        name = self.config.weights
        if name is not None:
            published = ResNet101_Weights.__members__
            state = read_state_dict(name) if is_file_name(name) else published_weights("ResNet-101", name, published)
            self.load_tower({key: value for key, value in state.items() if not key.startswith("fc.")}, name)

    def run(self, images: Tensor) -> Tensor:
        """Return the backbone's map of ``[N, 3, H, W]``, averaged to ``[N, 2048]`` in mode "crop"."""
        maps = super().run(images)
        return maps.mean((2, 3)) if self.config.mode == "crop" else maps

    def slots(self, pixels: Tensor, boxes: Tensor) -> Tensor:
        """Return ``[N, V, 2048]``; see ``pool_slots``."""
        return pool_slots(self.run(pixels), boxes, self.config.pooling)
