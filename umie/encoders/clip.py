"""`clip`: the image tower of any open_clip model over the picture and over each region."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from umie.encoders import registry
from umie.encoders._crops import TowerConfig, TowerEncoder, cut
from umie.encoders._weights import first_line, is_file_name, read_state_dict
from umie.encoders.base import Preprocessor
from umie.errors import UmieError, UnknownNameError
from umie.records import Box


@dataclass(frozen=True, kw_only=True)
class ClipEncoderConfig(TowerConfig):
    """Options of the CLIP encoder.

    Args:
        model: open_clip's name of the model, e.g. "ViT-B-32".
        pretrained: an open_clip tag, or a .safetensors, .pth or .pt file of the whole model or of its image
            tower, or None for random. A file does not say how to prepare pictures: they get open_clip's
            default mean and deviation, as in open_clip; give the tag where it has others (as SigLIP has).
    """

    model: str = "RN101"
    pretrained: str | None = None

    @property
    def feature_dim(self) -> int:
        """Width of the features; nothing is built to tell it."""
        return int(_model_config(self.model)["embed_dim"])


class ClipPreprocessor(Preprocessor):
    """Cuts out every slot and prepares it as open_clip prepares a picture: ``crops [V, 3, S, S]``."""

    def __init__(self, config: ClipEncoderConfig) -> None:
        super().__init__(config)
        transform = _open_clip().transform
        merged = transform.merge_preprocess_dict(transform.PreprocessCfg(), _tag(config))
        options = transform.PreprocessCfg(**{**merged, "size": _vision_config(config.model).image_size})
        self.transform = transform.image_transform_v2(options, is_train=False)
        self.input_size: tuple[int, ...] = options.input_size

    def tensors(self, image: Image.Image, boxes: Sequence[Box]) -> dict[str, Tensor]:
        """Return the crops of one picture."""
        return {"crops": torch.stack([self.transform(cut(image, box)) for box in boxes])}

    def no_tensors(self) -> dict[str, Tensor]:
        """Return no crop."""
        return {"crops": torch.zeros(0, *self.input_size)}


@registry.register("clip")
class ClipEncoder(TowerEncoder):
    """The image tower of an open_clip model: its pooled, projected, not normalised output for every crop.

    Source: the released code of UMIE takes CLIP RN101 features, 512-d, where the paper has ResNet-101.
    """

    Config = ClipEncoderConfig
    Preprocessor = ClipPreprocessor

    def __init__(self, config: ClipEncoderConfig) -> None:
        super().__init__(config, _build_tower(config))
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
        if name is None:
            return
        if _tag(self.config):
            self.load_tower(_published(self.config), name)
        elif is_file_name(name):
            state = read_state_dict(name)
            visual = {key: value for key, value in state.items() if key.startswith("visual.")}
            tower = {key.removeprefix("visual."): value for key, value in (visual or state).items()}
            self.load_tower(tower, name)
        else:
            tags = _open_clip().list_pretrained_tags_by_model(self.config.model)
            raise UnknownNameError(f"open_clip weights of {self.config.model}:", name, tags)

    def features(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """Return ``[B, V, Dv]`` from ``crops [B, V, 3, S, S]``."""
        return self.run_real(inputs["crops"], inputs["visual_mask"])


def _open_clip() -> Any:
    try:
        import open_clip  # heavy: seconds
    except ImportError as error:
        raise ImportError("The encoder 'clip' needs open_clip: pip install open_clip_torch") from error
    return open_clip


def _model_config(model: str) -> dict[str, Any]:
    open_clip = _open_clip()
    names = open_clip.list_models()
    if model not in names:  # get_model_config would take "hf-hub:..." to the network
        raise UnknownNameError("open_clip model", model, names)
    config: dict[str, Any] = open_clip.get_model_config(model)
    return config


def _vision_config(model: str) -> Any:
    # output_tokens (CoCa) makes a tower return its patches too
    return _open_clip().CLIPVisionCfg(**{**_model_config(model)["vision_cfg"], "output_tokens": False})


def _tag(config: ClipEncoderConfig) -> dict[str, Any]:
    """Return what open_clip knows of the pretrained tag; empty where it is no tag of this model."""
    tag: dict[str, Any] = _open_clip().get_pretrained_cfg(config.model, config.pretrained or "")
    return tag


def _build_tower(config: ClipEncoderConfig) -> nn.Module:
    """Return the image tower with random weights."""
    shape = _model_config(config.model)
    # open_clip's public create_model would build the text tower too, and log to the root logger
    build = _open_clip().model._build_vision_tower
    # a tag can ask for QuickGELU where the model of that name has GELU: its weights were trained with it
    quick_gelu = bool(shape.get("quick_gelu") or _tag(config).get("quick_gelu"))
    with torch.device("cpu"):  # from_pretrained builds on the meta device, where open_clip and timm fail
        tower: nn.Module = build(shape["embed_dim"], _vision_config(config.model), quick_gelu)
    return tower


def _published(config: ClipEncoderConfig) -> Mapping[str, Tensor]:
    """Return the image tower's weights of a tag, through open_clip, which converts foreign formats."""
    try:
        with warnings.catch_warnings(), torch.device("cpu"):
            # about an activation that the configuration of the model asks for and the tag does not speak of
            warnings.filterwarnings("ignore", message="QuickGELU mismatch")
            model = _open_clip().create_model(
                config.model,
                pretrained=config.pretrained,
                force_quick_gelu=bool(_tag(config).get("quick_gelu")),
            )
    except (OSError, RuntimeError) as error:
        raise UmieError(
            f"open_clip weights {config.pretrained} of {config.model} cannot be loaded: {first_line(error)}; "
            "without a network, give the path of a weight file as pretrained"
        ) from error
    state: Mapping[str, Tensor] = model.visual.state_dict()
    return state
