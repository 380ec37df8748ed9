"""Presets: the values of the paper. A config file can override them."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from umie.errors import UnknownNameError
from umie.experiments.config import PARTS


def _paper(size: str, batch_size: int, learning_rate: float) -> dict[str, Any]:
    return {
        "encoder": {"name": "resnet101_roi", "mode": "crop", "weights": "IMAGENET1K_V2"},
        "visual_embedding": {"num_slot_embeddings": 37},  # the image and 36 regions, which MEAE names by number
        "fusion": {"name": "gated", "residual": "paper"},
        "decoder": {"name": "t5", "source": f"google/flan-t5-{size}"},
        "max_input_tokens": 256,
        "max_target_tokens": 128,
        "training": {
            "num_train_epochs": 40,
            "batch_size": batch_size,
            "learning_rate": learning_rate,
            "label_smoothing_factor": 0.1,
            "group_by_length": True,
        },
    }


# Source: UMIE, "Training Configuration": AdamW, 40 epochs, learning rates and batch sizes of base and large, at most
# 256 input and 128 target tokens, label smoothing. The paper gives neither the amount of smoothing (0.1 is usual) nor
# the values of XLarge, for which those of large are used.
PRESETS: Mapping[str, Mapping[str, Any]] = {
    "paper-base": _paper("base", 16, 1e-4),
    "paper-large": _paper("large", 8, 5e-5),
    "paper-xl": _paper("xl", 8, 5e-5),
}


def with_preset(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of a config, with those of its preset, if any, where the config has none.

    ``training`` and parts without a name are merged by key. An unknown preset raises UnknownNameError.
    """
    name = values.get("preset")
    if name is None:
        return dict(values)
    if not isinstance(name, str) or name not in PRESETS:
        raise UnknownNameError("preset", str(name), PRESETS)
    merged = copy.deepcopy(dict(PRESETS[name]))
    for key, value in values.items():
        if key == "training" and isinstance(value, dict):
            inherited = dict(merged["training"])
            if "max_steps" in value:
                inherited.pop("num_train_epochs", None)
            merged[key] = {**inherited, **value}
        elif key in PARTS and isinstance(value, dict) and "name" not in value:
            merged[key] = {**merged[key], **value}  # options of the preset's part
        else:
            merged[key] = value
    return merged
