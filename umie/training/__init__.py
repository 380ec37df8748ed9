"""Instruction tuning of a variant on transformers' Trainer."""

from umie.training.config import Checkpoints, TrainingConfig
from umie.training.mixture import Mixture
from umie.training.parts import LoadedAdapter, adapt, freeze
from umie.training.train import train, visual_gradient

__all__ = ["Checkpoints", "LoadedAdapter", "Mixture", "TrainingConfig", "adapt", "freeze", "train", "visual_gradient"]
