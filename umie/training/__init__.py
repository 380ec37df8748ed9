"""Instruction tuning with the Trainer of transformers.

Only ``umie.training.config`` is imported at once; everything else needs torch and is loaded on first use.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from umie.training.config import Checkpoints, Sampling, TrainingConfig

if TYPE_CHECKING:
    from umie.training.checks import check_reporters, check_training, slow_bfloat16, uses_bfloat16
    from umie.training.mixture import Mixture
    from umie.training.parts import adapt, freeze, has_adapter, merged, save_adapter
    from umie.training.trainer import find_checkpoint, last_checkpoint, load_weights, state_of
    from umie.training.tuning import is_over, train, visual_gradient

_MODULES = {
    "checks": ("check_reporters", "check_training", "slow_bfloat16", "uses_bfloat16"),
    "mixture": ("Mixture",),
    "parts": ("adapt", "freeze", "has_adapter", "merged", "save_adapter"),
    "trainer": ("find_checkpoint", "last_checkpoint", "load_weights", "state_of"),
    "tuning": ("is_over", "train", "visual_gradient"),
}

__all__ = [
    "Checkpoints",
    "Mixture",
    "Sampling",
    "TrainingConfig",
    "adapt",
    "check_reporters",
    "check_training",
    "find_checkpoint",
    "freeze",
    "has_adapter",
    "is_over",
    "last_checkpoint",
    "load_weights",
    "merged",
    "save_adapter",
    "slow_bfloat16",
    "state_of",
    "train",
    "uses_bfloat16",
    "visual_gradient",
]


def __getattr__(name: str) -> Any:
    for module, names in _MODULES.items():
        if name in names:
            return getattr(importlib.import_module(f"{__name__}.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
