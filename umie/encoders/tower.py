"""Base classes of the encoders around a pretrained tower: freezing, cropping, skipping padding slots."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from umie.encoders.base import EncoderConfig, Preprocessor, VisualEncoder
from umie.errors import UmieError, check_choice, check_flag, check_keys
from umie.records import Box
from umie.weights import first_line, load_state

# Pixels per forward pass. On a CPU, more do not fit its caches: on two idle cores, 37 crops of ResNet-101 at once take
# up to twice as long as 8 at a time. On a GPU it bounds the memory of a frozen tower, whatever the batch size.
CPU_PIXELS = 8 * 224**2
GPU_PIXELS = 64 * 224**2

PRECISIONS = {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}


@dataclass(frozen=True, kw_only=True)
class BackboneConfig(EncoderConfig):
    """Options of every encoder around a pretrained tower, of any medium.

    Args:
        trainable: whether training updates the tower's weights; its batch statistics never change.
        precision: of the tower's weights and features: "bfloat16", "float16", "float32"; None follows the model.
    """

    trainable: bool = False
    precision: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.precision is not None:
            check_choice("precision", self.precision, PRECISIONS)


@dataclass(frozen=True, kw_only=True)
class TowerConfig(BackboneConfig):
    """Options of every encoder around a pretrained tower of images.

    Args:
        channels_last: use the channels-last memory format, which is faster for convolutions.
    """

    FINGERPRINT_EXCLUDE: ClassVar[frozenset[str]] = BackboneConfig.FINGERPRINT_EXCLUDE | {"channels_last"}

    channels_last: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        check_flag("channels_last", self.channels_last)


def cut(image: Image.Image, box: Box) -> Image.Image:
    """Return the part of an image under a relative box, with edges rounded to whole pixels; at least 1 x 1."""
    width, height = image.size
    left = min(round(box[0] * width), width - 1)
    top = min(round(box[1] * height), height - 1)
    right = max(round(box[2] * width), left + 1)
    bottom = max(round(box[3] * height), top + 1)
    return image.crop((left, top, right, bottom))


def published_weights(model: str, name: str, published: Mapping[str, Any]) -> Mapping[str, Tensor]:
    """Return the weights that torchvision publishes under a name; raise UmieError if they cannot be downloaded."""
    check_keys(f"torchvision weights of {model}:", [name], published)
    try:
        state: Mapping[str, Tensor] = published[name].get_state_dict(progress=False, check_hash=True)
    except (OSError, RuntimeError) as error:
        raise UmieError(
            f"weights {name}: cannot be downloaded ({first_line(error)}); "
            f"download {published[name].url} and set weights to the file's path"
        ) from error
    return state


class TowerPreprocessor(Preprocessor):
    """Prepares images for a tower.

    Mode "crop" gives ``crops [V, 3, S, S]``. Any other gives the whole image, ``pixels [3, H, W]``, and
    ``image_size [2]``, its height and width without the padding of a batch.
    """

    own_size: tuple[int, int]  # height and width of a crop

    def no_tensors(self) -> dict[str, Tensor]:
        """Return zero crops, or an image without pixels."""
        if self.config.mode == "crop":
            return {"crops": torch.zeros(0, 3, *self.own_size)}
        return {"pixels": torch.zeros(3, 0, 0), "image_size": torch.zeros(2, dtype=torch.long)}


class BackboneEncoder(VisualEncoder):
    """An encoder around one pretrained tower, frozen unless the configuration says ``trainable``.

    A frozen tower stays in eval mode and builds no graph. Batch normalization never updates its statistics, even in a
    trainable tower: the crops of a batch come from few images, and an image's features would depend on the others.
    """

    config: BackboneConfig

    def __init__(self, config: BackboneConfig, tower: nn.Module) -> None:
        super().__init__(config)
        self.tower = tower
        weights = set(tower.state_dict())
        self._save_all_buffers()
        self._constants = set(tower.state_dict()) - weights
        self.train()

    def train(self, mode: bool = True) -> Self:
        """Set the training mode, of the tower only if it is trainable, and never of batch normalization."""
        super().train(mode)
        if not self.config.trainable:
            self.tower.eval()
        for module in self.tower.modules():
            if isinstance(module, _BatchNorm):
                module.eval()
        if self.config.precision is not None:  # loading or moving a model gives all its parts one precision
            self.tower.to(PRECISIONS[self.config.precision])
        return self

    def _save_all_buffers(self) -> None:
        # some timm towers have non-persistent buffers, which from_pretrained does not restore
        for module in self.tower.modules():
            for name, buffer in module.named_buffers(recurse=False):
                module.register_buffer(name, buffer, persistent=True)

    def load_tower(self, state: Mapping[str, Tensor], source: object) -> None:
        """Load the tower's weights; see ``load_state``. Constants, which weight files do not contain, are kept."""
        load_state(self.tower, state, source, optional=self._constants)

    def num_at_once(self, height: int, width: int) -> int:
        """Return the number of images of this size, in pixels, per pass of the tower; at least 1."""
        on_cpu = next(self.tower.parameters()).device.type == "cpu"
        return max(1, (CPU_PIXELS if on_cpu else GPU_PIXELS) // (height * width))

    @property
    def _dtype(self) -> torch.dtype:
        return next(self.tower.parameters()).dtype


class TowerEncoder(BackboneEncoder):
    """An encoder whose tower turns images ``[N, 3, H, W]`` into features ``[N, Dv]`` or a map ``[N, Dv, h, w]``."""

    config: TowerConfig

    def run(self, images: Tensor) -> Tensor:
        """Return the tower's output for ``[N, 3, H, W]``; a frozen tower builds no graph."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and self.config.trainable):
            output: Tensor = self.tower(self.laid_out(images))
            return output

    def laid_out(self, images: Tensor) -> Tensor:
        """Return images ``[N, 3, H, W]`` in the tower's precision and memory format."""
        layout = torch.channels_last if self.config.channels_last else torch.contiguous_format
        return images.to(self._dtype, memory_format=layout)

    def features(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """Return ``[B, V, Dv]`` from ``crops``, or from ``pixels`` and ``image_size [B, 2]`` (height, width)."""
        return self.run_real(inputs["crops"], inputs["visual_mask"]) if "crops" in inputs else self.run_whole(inputs)

    @abstractmethod
    def slots(self, pixels: Tensor, boxes: Tensor) -> Tensor:
        """Return ``[N, V, Dv]`` from images ``[N, 3, H, W]`` and their boxes ``[N, V, 4]``, the whole image first."""

    def run_real(self, crops: Tensor, mask: Tensor) -> Tensor:
        """Return ``[B, V, Dv]`` from ``crops [B, V, 3, S, S]``, zero where the bool ``mask [B, V]`` is False."""
        real = mask.flatten().nonzero().squeeze(1)
        if not real.numel():
            return torch.zeros(*mask.shape, self.feature_dim, dtype=self._dtype, device=mask.device)
        flat = crops.flatten(0, 1)
        chunks = torch.split(real, self.num_at_once(*crops.shape[-2:]))
        features = torch.cat([self.run(flat[chunk]) for chunk in chunks])
        slots = features.new_zeros(mask.numel(), features.shape[1]).index_copy(0, real, features)
        return slots.view(*mask.shape, -1)

    def run_whole(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """Return ``[B, V, Dv]`` from ``pixels [B, 3, H, W]``, zero for a record without an image.

        Images are batched by their size without padding, which would change the output of convolutions.
        """
        pixels, boxes, mask = inputs["pixels"], inputs["boxes"], inputs["visual_mask"]
        rows: dict[tuple[int, int], list[int]] = {}
        sizes = inputs["image_size"].tolist()
        for row in mask.any(1).nonzero().flatten().tolist():
            rows.setdefault(tuple(sizes[row]), []).append(row)
        slots = [pixels.new_zeros(mask.shape[1], self.feature_dim, dtype=self._dtype)] * len(mask)
        with torch.set_grad_enabled(torch.is_grad_enabled() and self.config.trainable):
            for (height, width), same in rows.items():
                for chunk in torch.split(torch.tensor(same), self.num_at_once(height, width)):
                    found = self.slots(pixels[chunk, :, :height, :width], boxes[chunk])
                    for row, features in zip(chunk.tolist(), found, strict=True):
                        slots[row] = features
        return torch.stack(slots)
