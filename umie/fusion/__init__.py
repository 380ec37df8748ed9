"""Fusion modules: combine text states and visual states into the states that the decoder attends over."""

import torch

from umie import registries
from umie.fusion.base import Fusion, FusionConfig
from umie.fusion.visual_embedding import VisualEmbedding, VisualEmbeddingConfig
from umie.registry import Registry
from umie.types import FusedStates

torch.export.register_dataclass(FusedStates, serialized_type_name="umie.types.FusedStates")

registry: Registry[Fusion] = registries.fusions

__all__ = ["FusedStates", "Fusion", "FusionConfig", "VisualEmbedding", "VisualEmbeddingConfig", "registry"]
