"""`clip`: the image tower of any open_clip model over the image and its regions, by crops or from one pass."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Self, get_args

import torch
from PIL import Image
from torch import Tensor

from umie.encoders import registry
from umie.encoders.base import Preprocessor
from umie.encoders.clip.models import (
    build_tower,
    check_tag,
    model_config,
    open_clip,
    preparation,
    tag_config,
    tower_weights,
)
from umie.encoders.clip.pool import geometry, spatial
from umie.encoders.clip.spatial import Size
from umie.encoders.tower import TowerConfig, TowerEncoder, cut
from umie.errors import UmieError, UnknownNameError, check_text, check_whole
from umie.records import Box

Mode = Literal["crop", "pool"]

MAX_CROP_ASPECT = 16  # crop: of a longer one the middle is looked at
MAX_ASPECT = 4  # pool: a longer image is squeezed to this, so that no image's map grows without bound


@dataclass(frozen=True, kw_only=True)
class ClipEncoderConfig(TowerConfig):
    """Options of the CLIP encoder.

    Args:
        model: open_clip's name of the model, e.g. "ViT-B-32".
        pretrained: an open_clip tag, or a .safetensors, .pth, .pt or .bin file of the whole model or of its image
            tower, or None for random.
        tag: what a file does not say: the open_clip tag whose weights it holds, which decides on the preparation
            of images (SigLIP's mean is another) and the activation (OpenAI's is QuickGELU, as in the models whose
            names end in "-quickgelu"). None takes open_clip's default preparation and the model's own activation.
        mode: "crop" for one pass of the tower for every slot, prepared as open_clip prepares an image; "pool" for
            one pass over the image, of which nothing is cut off, and its map averaged under each box: cheaper.
        short_side: pool only, the image's short side in pixels, to the nearest multiple of the tower's patch or
            stride; None takes the tower's own. The long side keeps the aspect ratio, up to 4 times the short one.
    """

    # the weights themselves, the activation and the preparation of images stand for them in the fingerprint
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
        if self.mode not in get_args(Mode):
            raise UnknownNameError("mode", self.mode, get_args(Mode))
        if self.short_side is not None:
            check_whole("short_side", self.short_side, 1)
            if self.mode != "pool":
                raise UmieError(f"short_side is {self.short_side}: it is for mode 'pool', leave it out")

    @property
    def feature_dim(self) -> int:
        """Width of the features; nothing is built to tell it."""
        return int(model_config(self.model)["embed_dim"])


class ClipPreprocessor(Preprocessor):
    """Prepares images as open_clip does.

    mode "crop" gives ``crops [V, 3, S, S]``; "pool" gives ``pixels [3, H, W]`` and ``image_size [2]`` (H, W: the
    true size, which padding in a batch does not change).
    """

    def __init__(self, config: ClipEncoderConfig) -> None:
        super().__init__(config)
        if config.tag is not None:
            check_tag(config.model, config.tag)
            if config.pretrained not in (None, config.tag) and tag_config(config.model, config.pretrained):
                raise UmieError(f"tag is {config.tag!r} and pretrained is the tag {config.pretrained!r}: give one")
        self.options = preparation(config.model, config.tag or config.pretrained)
        self.transform = open_clip().transform.image_transform_v2(self.options, is_train=False)
        self.own_size: Size = tuple(self.options.input_size[1:])
        if config.mode == "pool":
            self.own_size, self.stride = geometry(config.model)
            if config.short_side is not None and config.short_side < min(self.stride):
                raise UmieError(
                    f"short_side is {config.short_side}: give {min(self.stride)} or more, a patch of {config.model}"
                )

    def tensors(self, image: Image.Image, boxes: Sequence[Box]) -> dict[str, Tensor]:
        """Return the crops of one image, or the whole image, by mode."""
        if self.config.mode == "crop":
            return {"crops": torch.stack([self.transform(self._centre(cut(image, box))) for box in boxes])}
        size = self._size(*image.size)
        squashed = dataclasses.replace(self.options, size=size, resize_mode="squash")
        pixels = open_clip().transform.image_transform_v2(squashed, is_train=False)(image)
        return {"pixels": pixels, "image_size": torch.tensor(size)}

    def no_tensors(self) -> dict[str, Tensor]:
        """Return no crop, or an image without pixels, by mode."""
        if self.config.mode == "crop":
            return {"crops": torch.zeros(0, 3, *self.own_size)}
        return {"pixels": torch.zeros(3, 0, 0), "image_size": torch.zeros(2, dtype=torch.long)}

    def _centre(self, image: Image.Image) -> Image.Image:
        """Cut the ends off a very long image, of which open_clip sees the middle square only.

        It enlarges the short side before it cuts: one row of 4000 pixels would take 600 MB.
        """
        width, height = image.size
        most = MAX_CROP_ASPECT * min(image.size)
        if self.options.resize_mode != "shortest" or max(image.size) <= most:
            return image
        most += (max(image.size) - most) % 2  # as much from either end, so that the middle stays where it is
        left, top = max(0, (width - most) // 2), max(0, (height - most) // 2)
        return image.crop((left, top, left + min(width, most), top + min(height, most)))

    def _size(self, width: int, height: int) -> Size:
        """Return the size in the tower's pixels, height first, of an image of this size."""
        short = self.config.short_side or min(self.own_size)
        if width == height and (short, short) == self.own_size:
            return short, short  # some towers' own size is no multiple of their patch
        scale = short / min(width, height)
        cells = [
            round(min(side * scale, short * MAX_ASPECT) / stride)
            for side, stride in zip((height, width), self.stride, strict=True)
        ]
        return max(cells[0], 1) * self.stride[0], max(cells[1], 1) * self.stride[1]


@registry.register("clip")
class ClipEncoder(TowerEncoder):
    """The image tower of an open_clip model: its pooled, projected, not normalized output.

    Mode "pool" takes regions from the tower's last map, averaged under the box, through the tower's own head.

    Source: the released code of UMIE takes CLIP RN101 features, 512-d, where the paper has ResNet-101. The mode
    "pool" is not the paper's; MaskCLIP (Zhou et al. 2022) reads features off a CLIP tower's map in this way.
    """

    Config = ClipEncoderConfig
    Preprocessor = ClipPreprocessor

    def __init__(self, config: ClipEncoderConfig) -> None:
        super().__init__(config, build_tower(config.model, config.tag or config.pretrained))
        self.config: ClipEncoderConfig = config

    @property
    def feature_dim(self) -> int:
        """Width Dv of the features."""
        return self.config.feature_dim

    def load_weights(self) -> None:
        """Load the weights that the configuration names.

        Raises:
            UmieError: the file is missing or does not fit, or the tag's weights cannot be had.
            UnknownNameError: open_clip has no such tag for the model.
        """
        name = self.config.pretrained
        if name is not None:
            self.load_tower(tower_weights(self.config.model, name), name)

    def train(self, mode: bool = True) -> Self:
        """Set the training mode; see ``TowerEncoder.train``."""
        # a cast to another precision makes timm build rotary frequencies anew: on the meta device of from_pretrained
        # they could not be, and they would not be saved
        with torch.device("cpu"):
            super().train(mode)
        for module in self.tower.modules():
            for name, buffer in module.named_buffers(recurse=False):
                module.register_buffer(name, buffer, persistent=True)
        return self

    def fingerprint(self) -> str:
        """Return a hash of all that the features depend on: where the weights came from is not of it."""
        preprocess: Any = self.preprocess
        how = {
            "preparation": dataclasses.asdict(preprocess.options),
            "quick_gelu": any(type(module).__name__ == "QuickGELU" for module in self.tower.modules()),
        }
        text = json.dumps([super().fingerprint(), how], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:32]

    def features(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """Return ``[B, V, Dv]`` from ``crops``, or from ``pixels`` and ``image_size``, by mode."""
        if self.config.mode == "crop":
            return self.run_real(inputs["crops"], inputs["visual_mask"])
        parts = spatial(self.tower)
        return self.run_whole(inputs, lambda pixels, boxes: parts.pooled(self.laid_out(pixels), boxes))
