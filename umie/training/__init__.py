"""Instruction tuning with the Trainer of transformers.

Only ``umie.training.config`` is imported at once; everything else needs torch and is loaded on first use.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from umie.training.config import Checkpoints, Sampling, TrainingConfig

if TYPE_CHECKING:
    from umie.training.mixture import Mixture
    from umie.training.parts import adapt, freeze, has_adapter, merged, save_adapter
    from umie.training.trainer import last_checkpoint, load_weights, state_of
    from umie.training.tuning import is_over, train, visual_gradient

_MODULES = {
    "Mixture": "mixture",
    **dict.fromkeys(("adapt", "freeze", "has_adapter", "merged", "save_adapter"), "parts"),
    **dict.fromkeys(("is_over", "train", "visual_gradient"), "tuning"),
    **dict.fromkeys(("last_checkpoint", "load_weights", "state_of"), "trainer"),
}

__all__ = [
    "Checkpoints",
    "Mixture",
    "Sampling",
    "TrainingConfig",
    "adapt",
    "freeze",
    "has_adapter",
    "is_over",
    "last_checkpoint",
    "load_weights",
    "merged",
    "save_adapter",
    "state_of",
    "train",
    "visual_gradient",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = importlib.import_module(f"{__name__}.{_MODULES[name]}")
    value = getattr(module, name)
    globals()[name] = value
    return value
