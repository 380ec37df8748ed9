"""`timm`: any model of timm over the image and its regions, from crops or from one pass over the image."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar, Literal, get_args

import torch
from PIL import Image
from torch import Tensor, nn

from umie.checkpoints import check_checkpoint, check_file
from umie.encoders import registry
from umie.encoders.resnet101_roi import ResNet101RoiPreprocessor
from umie.encoders.roi import Pooling, pool_slots
from umie.encoders.tower import TowerConfig, TowerEncoder
from umie.errors import (
    UmieError,
    UnknownNameError,
    check_choice,
    check_keys,
    check_text,
    check_whole,
    import_extra,
    shown,
)
from umie.files import read_json
from umie.weights import first_line, is_file_name, read_state_dict

Mode = Literal["crop", "align"]

PUBLISHED = "published"
MAX_SIDE = 4096  # pixels of a model's input


@dataclass(frozen=True, kw_only=True)
class TimmEncoderConfig(TowerConfig):
    """Options of an encoder from timm.

    Args:
        model: a model of timm, e.g. "tf_efficientnet_lite0"; None is that of the folder ``weights``, or "resnet50".
        weights: a folder with config.json and model.safetensors, as timm's hub repositories and `umie convert` have; a
            .safetensors, .pth, .pt or .bin file; "published" for the weights that timm downloads; or None for random
            weights. A folder's config.json also determines how images are prepared.
        mode: "crop": one pass per slot, resized to the model's input size; "align": one pass over the image, whose last
            map is averaged under each region, which is cheaper and coarser. It needs a convolutional model.
        short_side: align only: the image's short side in pixels; None uses the model's input size. The long side keeps
            the aspect ratio, up to 4 times the short side.
        pooling: align only: how the map is averaged under a region; see ``resnet101_roi``.
        preparation: ``input_size``, ``mean``, ``std`` and ``interpolation``, in place of those of the weights or of the
            model; saved models contain them.
    """

    FINGERPRINT_EXCLUDE: ClassVar[frozenset[str]] = TowerConfig.FINGERPRINT_EXCLUDE | {"weights"}
    weights_option: ClassVar[str | None] = "weights"

    model: str | None = None
    weights: str | None = None
    mode: Mode = "crop"
    short_side: int | None = None
    pooling: Pooling = "precise"
    preparation: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_text("model", self.model)
        check_text("weights", self.weights)
        check_keys("mode", [self.mode], get_args(Mode))
        check_choice("pooling", self.pooling, get_args(Pooling))
        if self.short_side is not None:
            check_whole("short_side", self.short_side, 32)

    @property
    def architecture(self) -> str:
        """The model's name in timm."""
        own = _folder_config(str(self.weights)).get("architecture") if _is_folder(self.weights) else None
        return str(self.model or own or "resnet50")

    @property
    def prepared(self) -> dict[str, Any]:
        """How images are prepared: ``input_size``, ``mean``, ``std`` and ``interpolation``."""
        own = self.preparation
        if own is None:
            own = _folder_config(str(self.weights)).get("pretrained_cfg", {}) if _is_folder(self.weights) else {}
        values = {**_skeleton(self.architecture).pretrained_cfg, **own}
        prepared = {name: values[name] for name in ("input_size", "mean", "std", "interpolation")}
        _check_prepared(prepared)
        return prepared

    def identity(self) -> dict[str, Any]:
        """Return the options that features depend on."""
        return {**super().identity(), "model": self.architecture, "preparation": self.prepared}

    @property
    def feature_dim(self) -> int:
        """Width of the features."""
        return int(_skeleton(self.architecture).num_features)


class TimmPreprocessor(ResNet101RoiPreprocessor):
    """Prepares images as the model of timm needs them, resized without cropping, so that a region is seen whole."""

    def __init__(self, config: TimmEncoderConfig) -> None:
        super().__init__(config)
        prepared = config.prepared
        self.own_size = tuple(prepared["input_size"][1:])
        self.MEAN, self.STD = tuple(prepared["mean"]), tuple(prepared["std"])
        bicubic = prepared["interpolation"] == "bicubic"
        self.resampling = Image.Resampling.BICUBIC if bicubic else Image.Resampling.BILINEAR


@registry.register("timm")
class TimmEncoder(TowerEncoder):
    """Any image model of timm without its classifier: the mean of its last map, or a transformer's pooled output."""

    Config = TimmEncoderConfig
    Preprocessor = TimmPreprocessor
    config: TimmEncoderConfig

    def __init__(self, config: TimmEncoderConfig) -> None:
        super().__init__(config, _created(config.architecture))
        if config.mode == "align" and not _has_map(config.architecture):
            raise UmieError(f"mode is 'align': {config.architecture} has no map of the image: use mode 'crop'")

    def saved_options(self) -> dict[str, Any]:
        """Return what a folder of weights determines, so that a saved model does not need it."""
        return {"model": self.config.architecture, "preparation": self.config.prepared}

    def load_weights(self) -> None:
        """Load the weights that the configuration specifies, without a classifier."""
        source = self.config.weights
        if source is None:
            return
        if _is_folder(source):
            check_checkpoint(Path(source))
            state: Mapping[str, Tensor] = read_state_dict(Path(source) / "model.safetensors")
        elif source == PUBLISHED:
            state = _published(self.config.architecture)
        elif is_file_name(source):
            state = read_state_dict(source)
        else:
            raise UnknownNameError("weights", source, [PUBLISHED, "a folder", "a weight file"])
        classifiers = _skeleton(self.config.architecture).pretrained_cfg.get("classifier") or ()
        prefixes = tuple(f"{name}." for name in ([classifiers] if isinstance(classifiers, str) else classifiers))
        kept = {name: value for name, value in state.items() if not (prefixes and name.startswith(prefixes))}
        self.load_tower(kept, source)

    def run(self, images: Tensor) -> Tensor:
        """Return features ``[N, Dv]`` of ``[N, 3, H, W]`` in mode "crop", or the map ``[N, Dv, h, w]``."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and self.config.trainable):
            tower: Any = self.tower
            found: Tensor = tower.forward_features(self.laid_out(images))
            if _has_map(self.config.architecture):
                found = found.permute(0, 3, 1, 2) if getattr(tower, "output_fmt", "NCHW") == "NHWC" else found
                return found.mean((2, 3)) if self.config.mode == "crop" else found
            pooled: Tensor = tower.forward_head(found, pre_logits=True)
            return pooled

    def slots(self, pixels: Tensor, boxes: Tensor) -> Tensor:
        """Return ``[N, V, Dv]``; see ``pool_slots``."""
        return pool_slots(self.run(pixels), boxes, self.config.pooling)


def _created(architecture: str, **options: Any) -> nn.Module:
    timm = import_extra("timm", "timm", "the encoder timm")
    if not timm.is_model(architecture):
        near = difflib.get_close_matches(architecture, timm.list_models(), n=3)
        hint = f" Did you mean {' or '.join(map(repr, near))}?" if near else ""
        raise UmieError(f"Unknown timm model {architecture!r}.{hint}")
    model: nn.Module = timm.create_model(architecture, num_classes=0, **options)
    return model


def _published(architecture: str) -> Mapping[str, Tensor]:
    try:
        return _created(architecture, pretrained=True).state_dict()
    except (OSError, RuntimeError) as error:
        raise UmieError(
            f"weights {PUBLISHED}: those of {architecture} cannot be downloaded ({first_line(error)}): download "
            "model.safetensors, and set weights to the file's path"
        ) from error


@lru_cache(maxsize=8)
def _skeleton(architecture: str) -> Any:
    """Return the model without memory for its weights."""
    with torch.device("meta"):
        return _created(architecture)


@lru_cache(maxsize=8)
def _has_map(architecture: str) -> bool:
    """Return whether the last output is a map of an image of any size, and not tokens."""
    skeleton = _skeleton(architecture).eval()
    channels, height, width = skeleton.pretrained_cfg["input_size"]
    try:
        with torch.device("meta"), torch.no_grad():
            found = [skeleton.forward_features(torch.zeros(1, channels, height, size)) for size in (width, 2 * width)]
        return all(one.ndim == 4 for one in found)
    except Exception:  # models of a fixed size, or with several outputs, raise nearly anything
        return False


def _is_folder(weights: str | None) -> bool:
    return weights is not None and Path(weights).is_dir()


def _check_prepared(prepared: Mapping[str, Any]) -> None:
    """Raise UmieError for values, as of the config.json of others, with which no image can be prepared."""
    for name, most in (("input_size", MAX_SIDE), ("mean", 1), ("std", 1e3)):
        value = prepared[name]
        kinds = int if name == "input_size" else (int, float)
        if not isinstance(value, list | tuple) or len(value) != 3 or not all(isinstance(one, kinds) for one in value):
            raise UmieError(f"{name} is {shown(value)}: use a list of three numbers")
        if not all(0 <= one <= most for one in value) or (name != "mean" and not all(value)):
            raise UmieError(f"{name} is {shown(value)}: use positive numbers up to {most:g}")
    check_text("interpolation", prepared["interpolation"])


def _folder_config(folder: str) -> Mapping[str, Any]:
    check_file(Path(folder) / "config.json")
    content = read_json(Path(folder) / "config.json", "timm's config.json")
    if not isinstance(content, dict) or not isinstance(content.get("pretrained_cfg", {}), dict):
        raise UmieError(f"{folder}/config.json: is not the configuration of a timm model")
    return content
