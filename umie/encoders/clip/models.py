"""The interface of `clip` to open_clip: names, shapes, preparation of images, image towers, published weights."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from umie.errors import UmieError, UnknownNameError, check_keys, import_extra
from umie.weights import first_line, is_file_name, read_state_dict


def open_clip() -> Any:
    """Return the module open_clip, which takes seconds to import."""
    return import_extra("open_clip", "clip", "the encoder clip")


def model_config(model: str) -> dict[str, Any]:
    """Return open_clip's description of a model; raise UnknownNameError if it has none of this name."""
    # get_model_config would look "hf-hub:..." up on the network
    check_keys("open_clip model", [model], open_clip().list_models())
    config: dict[str, Any] = open_clip().get_model_config(model)
    return config


def vision_config(model: str) -> Any:
    """Return the description of a model's image tower, a CLIPVisionCfg."""
    # output_tokens (CoCa) makes a tower return its patches too; patch dropout would make features random
    changed = {"output_tokens": False, "patch_dropout": 0.0}
    return open_clip().CLIPVisionCfg(**{**model_config(model)["vision_cfg"], **changed})


def tag_config(model: str, tag: str | None) -> dict[str, Any]:
    """Return open_clip's description of a pretrained tag; empty if the model has no such tag."""
    known: dict[str, Any] = open_clip().get_pretrained_cfg(model, tag or "")
    return known


def check_tag(model: str, tag: str) -> None:
    """Raise UnknownNameError unless open_clip has this tag for the model."""
    if not tag_config(model, tag):
        tags = open_clip().list_pretrained_tags_by_model(model)
        raise UnknownNameError(f"open_clip weights of {model}:", tag, tags)


def has_quick_gelu(model: str, tag: str | None) -> bool:
    """Return whether the tower uses QuickGELU; a tag can require it although the model's default is GELU."""
    return bool(model_config(model).get("quick_gelu") or tag_config(model, tag).get("quick_gelu"))


def preparation(model: str, tag: str | None) -> Any:
    """Return how images are prepared, a PreprocessCfg: as the tag requires, or open_clip's default."""
    transform = open_clip().transform
    merged = transform.merge_preprocess_dict(transform.PreprocessCfg(), tag_config(model, tag))
    return transform.PreprocessCfg(**{**merged, "size": vision_config(model).image_size})


def build_tower(model: str, tag: str | None, device: str = "cpu") -> nn.Module:
    """Return the image tower with random weights.

    The tag determines the activation; anything that is not a tag of the model keeps the model's own. The device is the
    CPU even under from_pretrained, which builds on the meta device, where some towers are built wrong.
    """
    # open_clip's public create_model would build the text tower too, and log to the root logger
    build = open_clip().model._build_vision_tower
    with torch.device(device):
        tower: nn.Module = build(model_config(model)["embed_dim"], vision_config(model), has_quick_gelu(model, tag))
    return tower


def tower_weights(model: str, pretrained: str) -> Mapping[str, Tensor]:
    """Return the image tower's weights from a tag or a file; raise UmieError if it is unknown or cannot be loaded."""
    tag = tag_config(model, pretrained)
    if not tag:
        if not is_file_name(pretrained):
            check_tag(model, pretrained)
        state = read_state_dict(pretrained)
        visual = {key: value for key, value in state.items() if key.startswith("visual.")}
        return {key.removeprefix("visual."): value for key, value in (visual or state).items()}
    try:
        with warnings.catch_warnings(), torch.device("cpu"):
            # raised if the model's configuration has QuickGELU and the tag does not mention it
            warnings.filterwarnings("ignore", message="QuickGELU mismatch")
            quick = bool(tag.get("quick_gelu"))
            # open_clip converts foreign formats
            whole = open_clip().create_model(model, pretrained=pretrained, force_quick_gelu=quick)
    except (OSError, RuntimeError) as error:
        raise UmieError(
            f"open_clip weights {pretrained} of {model} cannot be loaded: {first_line(error)}; "
            "without a network, set pretrained to the path of a weight file"
        ) from error
    weights: Mapping[str, Tensor] = whole.visual.state_dict()
    return weights
