"""`resnet101_roi`: the paper's encoder, 2048-d ResNet-101 features of the picture and of each region."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

import torch
from PIL import Image
from torch import Tensor, nn
from torchvision.models import ResNet101_Weights, resnet101
from torchvision.ops import roi_align
from torchvision.transforms.functional import normalize, to_tensor

from umie.encoders import registry
from umie.encoders._crops import TowerConfig, TowerEncoder, cut
from umie.encoders._weights import first_line, is_file_name, read_state_dict
from umie.encoders.base import Preprocessor
from umie.errors import UmieError, UnknownNameError, check_text
from umie.records import Box

Mode = Literal["crop", "align"]

STRIDE = 32  # pixels of the picture for one cell of the backbone's map
MAX_ASPECT = 4  # align: a longer picture is squeezed to this, so that no picture's map grows without bound
IMAGES = 8  # align: pictures of one size in one pass
CELLS = 7  # align: cells of a region, per side, before they are averaged


@dataclass(frozen=True, kw_only=True)
class ResNet101RoiEncoderConfig(TowerConfig):
    """Options of the ResNet-101 encoder.

    Args:
        weights: torchvision's name (IMAGENET1K_V2), a .safetensors, .pth or .pt file, or None for random.
        mode: "crop" as in the paper, one backbone pass for every slot resized to 224 x 224 pixels; "align"
            for one pass over the picture and RoIAlign on its last map, cheaper and coarser.
        short_side: align only, the picture's short side in pixels; the long side keeps the aspect ratio, up
            to 4 times the short one.
    """

    feature_dim: ClassVar[int] = 2048

    weights: str | None = None
    mode: Mode = "crop"
    short_side: int = 320

    def __post_init__(self) -> None:
        super().__post_init__()
        check_text("weights", self.weights)
        if self.mode not in get_args(Mode):
            raise UnknownNameError("mode", self.mode, get_args(Mode))
        if self.short_side < STRIDE:
            raise UmieError(f"short_side is {self.short_side}: give {STRIDE} or more")


class ResNet101RoiPreprocessor(Preprocessor):
    """Pictures as ImageNet models take them.

    mode "crop" gives ``crops [V, 3, 224, 224]``; "align" gives ``pixels [3, H, W]`` and ``image_size [2]``
    (H, W: the true size, which padding in a batch does not change).
    """

    MEAN = (0.485, 0.456, 0.406)
    STD = (0.229, 0.224, 0.225)
    CROP = 224

    def tensors(self, image: Image.Image, boxes: Sequence[Box]) -> dict[str, Tensor]:
        """Return the crops of one picture, or the whole picture, by mode."""
        if self.config.mode == "crop":
            crops = [self._pixels(cut(image, box), self.CROP, self.CROP) for box in boxes]
            return {"crops": torch.stack(crops)}
        short, most = self.config.short_side, self.config.short_side * MAX_ASPECT
        scale = short / min(image.size)
        width, height = (min(round(side * scale), most) for side in image.size)
        return {"pixels": self._pixels(image, width, height), "image_size": torch.tensor([height, width])}

    def no_tensors(self) -> dict[str, Tensor]:
        """Return no crop, or a picture without pixels, by mode."""
        if self.config.mode == "crop":
            return {"crops": torch.zeros(0, 3, self.CROP, self.CROP)}
        return {"pixels": torch.zeros(3, 0, 0), "image_size": torch.zeros(2, dtype=torch.long)}

    def _pixels(self, image: Image.Image, width: int, height: int) -> Tensor:
        pixels = to_tensor(image.resize((width, height), Image.Resampling.BILINEAR))
        normalized: Tensor = normalize(pixels, self.MEAN, self.STD)
        return normalized


@registry.register("resnet101_roi")
class ResNet101RoiEncoder(TowerEncoder):
    """ResNet-101 up to its global average pooling, over every crop or over the picture with RoIAlign.

    Random weights start every residual branch at zero: torchvision's usual ones give features around 1e5.

    Source: UMIE (papers/002), visual encoder: the picture and up to 36 regions, 224 x 224. The mode "align"
    is not the paper's: it reads the regions off one map (RoIAlign: He et al. 2017, Mask R-CNN).
    """

    Config = ResNet101RoiEncoderConfig
    Preprocessor = ResNet101RoiPreprocessor

    def __init__(self, config: ResNet101RoiEncoderConfig) -> None:
        parts = OrderedDict(resnet101(weights=None, zero_init_residual=True).named_children())
        del parts["avgpool"], parts["fc"]
        super().__init__(config, nn.Sequential(parts))
        self.config: ResNet101RoiEncoderConfig = config

    @property
    def feature_dim(self) -> int:
        """Width Dv of the features."""
        return self.config.feature_dim

    def load_weights(self) -> None:
        """Load the weights that the configuration names.

        Raises:
            UmieError: the file is missing or does not fit, or published weights cannot be downloaded.
            UnknownNameError: torchvision publishes no weights of this name.
        """
        name = self.config.weights
        if name is not None:
            state = read_state_dict(name) if is_file_name(name) else _published(name)
            self.load_tower({key: value for key, value in state.items() if not key.startswith("fc.")}, name)

    def run(self, images: Tensor) -> Tensor:
        """Return the backbone's map of ``[N, 3, H, W]``, averaged to ``[N, 2048]`` in mode "crop"."""
        maps = super().run(images)
        return maps.mean((2, 3)) if self.config.mode == "crop" else maps

    def features(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """Return ``[B, V, 2048]`` from ``crops``, or from ``pixels`` and ``image_size``, by mode."""
        mask = inputs["visual_mask"]
        if self.config.mode == "crop":
            return self.run_real(inputs["crops"], mask)
        slots = [inputs["pixels"].new_zeros(mask.shape[1], self.feature_dim, dtype=self._dtype)] * len(mask)
        for (height, width), rows in _by_size(inputs["image_size"], mask).items():
            for start in range(0, len(rows), IMAGES):
                chunk = rows[start : start + IMAGES]
                maps = self.run(inputs["pixels"][chunk, :, :height, :width])
                for row, found in zip(chunk, _pooled(maps, inputs["boxes"][chunk]), strict=True):
                    slots[row] = found
        return torch.stack(slots)


def _by_size(sizes: Tensor, mask: Tensor) -> dict[tuple[int, int], list[int]]:
    """Return the rows that have a picture, by its size: padding in a convolution would change features."""
    rows: dict[tuple[int, int], list[int]] = {}
    for row, ((height, width), real) in enumerate(zip(sizes.tolist(), mask.any(1).tolist(), strict=True)):
        if real:
            rows.setdefault((height, width), []).append(row)
    return rows


def _pooled(maps: Tensor, boxes: Tensor) -> Tensor:
    """Return slots ``[N, V, C]``: the mean of maps ``[N, C, h, w]``, then RoIAlign of ``boxes[:, 1:]``."""
    height, width = maps.shape[2:]
    # relative boxes scale with the map: its last cell hangs over the picture where 32 does not divide a side
    rois = boxes[:, 1:].float() * boxes.new_tensor([width, height, width, height], dtype=torch.float)
    found = roi_align(maps.float(), list(rois), CELLS, spatial_scale=1.0, sampling_ratio=2, aligned=True)
    regions = found.mean((2, 3)).view(len(maps), -1, maps.shape[1]).to(maps.dtype)
    return torch.cat([maps.mean((2, 3))[:, None], regions], dim=1)


def _published(name: str) -> Mapping[str, Tensor]:
    choices = ResNet101_Weights.__members__
    if name not in choices:
        raise UnknownNameError("torchvision weights of ResNet-101:", name, choices)
    try:
        state: Mapping[str, Tensor] = choices[name].get_state_dict(progress=False, check_hash=True)
    except (OSError, RuntimeError) as error:
        raise UmieError(
            f"weights {name}: cannot be downloaded ({first_line(error)}); "
            f"fetch {choices[name].url} and give the file's path as weights"
        ) from error
    return state
