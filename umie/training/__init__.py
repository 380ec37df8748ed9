"""Instruction tuning of a variant on transformers' Trainer."""

from umie.training.config import Checkpoints, TrainingConfig
from umie.training.mixture import Mixture
from umie.training.parts import adapt, freeze, has_adapter, merged, save_adapter
from umie.training.train import is_over, train, visual_gradient
from umie.training.trainer import last_checkpoint, load_weights, state_of

__all__ = [
    "Checkpoints",
    "Mixture",
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
