"""`clip`: the image tower of any open_clip model over the image and its regions, from crops or from one pass."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Self, get_args

import torch
from PIL import Image
from torch import Tensor

from umie.encoders import registry
from umie.encoders.clip import models
from umie.encoders.clip.pool import Size, geometry, spatial
from umie.encoders.tower import TowerConfig, TowerEncoder, TowerPreprocessor, cut
from umie.errors import UmieError, check_keys, check_text, check_whole
from umie.records import Box

Mode = Literal["crop", "pool"]

MAX_CROP_ASPECT = 16  # crop: only the middle of longer crops is used
MAX_ASPECT = 4  # pool: longer images are squeezed to this aspect ratio, which bounds the size of the map


@dataclass(frozen=True, kw_only=True)
class ClipEncoderConfig(TowerConfig):
    """Options of the CLIP encoder.

    Args:
        model: the name of an open_clip model, e.g. "ViT-B-32".
        pretrained: an open_clip tag, a .safetensors, .pth, .pt or .bin file with the weights of the model or of its
            image tower, or None for random weights.
        tag: for weights from a file: the open_clip tag they belong to. It determines the preparation of images (SigLIP
            has another mean) and the activation (OpenAI's weights need QuickGELU, like the models whose names end in
            "-quickgelu"). None uses open_clip's default preparation and the model's own activation.
        mode: "crop": one pass of the tower per slot, prepared as open_clip prepares an image; "pool": one pass over the
            uncropped image, whose map is averaged under each box, which is cheaper.
        short_side: pool only: the image's short side in pixels, rounded to a multiple of the tower's patch or stride;
            None uses the tower's own size. The long side keeps the aspect ratio, up to 4 times the short side.
    """

    # the fingerprint contains the weights, the activation and the preparation of images instead
    FINGERPRINT_EXCLUDE: ClassVar[frozenset[str]] = TowerConfig.FINGERPRINT_EXCLUDE | {"pretrained", "tag"}
    weights_option: ClassVar[str | None] = "pretrained"

    model: str = "RN101"
    pretrained: str | None = None
    tag: str | None = None
    mode: Mode = "crop"
    short_side: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_text("pretrained", self.pretrained)
        check_text("tag", self.tag)
        check_keys("mode", [self.mode], get_args(Mode))
        if self.short_side is not None:
            check_whole("short_side", self.short_side, 1)
            if self.mode != "pool":
                raise UmieError(f"short_side is {self.short_side}: it applies only to mode 'pool': omit it")

    @property
    def feature_dim(self) -> int:
        """Width of the features, known without building the model."""
        return int(models.model_config(self.model)["embed_dim"])


class ClipPreprocessor(TowerPreprocessor):
    """Prepares images as open_clip does."""

    def __init__(self, config: ClipEncoderConfig) -> None:
        super().__init__(config)
        if config.tag is not None:
            models.check_tag(config.model, config.tag)
            if config.pretrained not in (None, config.tag) and models.tag_config(config.model, config.pretrained):
                raise UmieError(f"tag is {config.tag!r} and pretrained is the tag {config.pretrained!r}: set only one")
        self.options = models.preparation(config.model, config.tag or config.pretrained)
        self.transform = models.open_clip().transform.image_transform_v2(self.options, is_train=False)
        self.own_size = tuple(self.options.input_size[1:])
        if config.mode == "pool":
            self.own_size, self.stride = geometry(config.model)
            if config.short_side is not None and config.short_side < min(self.stride):
                raise UmieError(
                    f"short_side is {config.short_side}: use at least {min(self.stride)}, a patch of {config.model}"
                )

    def tensors(self, image: Image.Image, boxes: Sequence[Box]) -> dict[str, Tensor]:
        """Return the crops of one image (mode "crop") or the whole image ("pool")."""
        if self.config.mode == "crop":
            return {"crops": torch.stack([self.transform(self._center(cut(image, box))) for box in boxes])}
        size = self._size(*image.size)
        squashed = dataclasses.replace(self.options, size=size, resize_mode="squash")
        pixels = models.open_clip().transform.image_transform_v2(squashed, is_train=False)(image)
        return {"pixels": pixels, "image_size": torch.tensor(size)}

    def _center(self, image: Image.Image) -> Image.Image:
        # open_clip uses only the middle square, but enlarges the short side first: 4000 x 1 pixels would take 600 MB
        width, height = image.size
        most = MAX_CROP_ASPECT * min(image.size)
        if self.options.resize_mode != "shortest" or max(image.size) <= most:
            return image
        most += (max(image.size) - most) % 2  # cut equally from both ends, so that the middle does not move
        left, top = max(0, (width - most) // 2), max(0, (height - most) // 2)
        return image.crop((left, top, left + min(width, most), top + min(height, most)))

    def _size(self, width: int, height: int) -> Size:
        """Return the height and width to which an image is resized."""
        short = self.config.short_side or min(self.own_size)
        if width == height and (short, short) == self.own_size:
            return short, short  # the own size of some towers is not a multiple of their patch
        scale = short / min(width, height)
        cells = [
            round(min(side * scale, short * MAX_ASPECT) / stride)
            for side, stride in zip((height, width), self.stride, strict=True)
        ]
        return max(cells[0], 1) * self.stride[0], max(cells[1], 1) * self.stride[1]


@registry.register("clip")
class ClipEncoder(TowerEncoder):
    """The image tower of an open_clip model: its pooled and projected output, not normalized.

    Mode "pool" averages the tower's last map under each region and applies the tower's own head.

    Source: the released code of UMIE uses 512-dimensional CLIP RN101 features, the paper ResNet-101. Deviation: mode
    "pool" takes region features from a CLIP tower's map, as MaskCLIP does (Zhou et al. 2022).
    """

    Config = ClipEncoderConfig
    Preprocessor = ClipPreprocessor
    config: ClipEncoderConfig

    def __init__(self, config: ClipEncoderConfig) -> None:
        super().__init__(config, models.build_tower(config.model, config.tag or config.pretrained))

    def load_weights(self) -> None:
        """Load the weights that the configuration specifies; see ``tower_weights``."""
        if self.config.pretrained is not None:
            state = models.tower_weights(self.config.model, self.config.pretrained)
            self.load_tower(state, self.config.pretrained)

    def train(self, mode: bool = True) -> Self:
        """Set the training mode; see ``TowerEncoder.train``."""
        # a cast to another precision makes timm recompute rotary frequencies: under from_pretrained this would happen
        # on the meta device, and they would not be saved
        with torch.device("cpu"):
            super().train(mode)
        self._save_all_buffers()
        return self

    def fingerprint(self) -> str:
        """Return a hash of everything the features depend on, regardless of where the weights came from."""
        preprocess: Any = self.preprocess
        how = {
            "preparation": dataclasses.asdict(preprocess.options),
            "quick_gelu": any(type(module).__name__ == "QuickGELU" for module in self.tower.modules()),
        }
        text = json.dumps([super().fingerprint(), how], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:32]

    def slots(self, pixels: Tensor, boxes: Tensor) -> Tensor:
        """Return ``[N, V, Dv]``: of whole images, then of each of ``boxes[:, 1:]`` from the tower's map."""
        return spatial(self.tower).pooled(self.laid_out(pixels), boxes)
