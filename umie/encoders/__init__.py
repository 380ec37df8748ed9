"""Encoders of media: from an image, a clip or a sound and its places to VisualFeatures."""

import importlib
from collections.abc import Mapping
from typing import Any

from umie import registries
from umie.encoders.base import (
    AudioPreprocessor,
    EncoderConfig,
    MediaPreprocessor,
    Preprocessor,
    VideoPreprocessor,
    VisualEncoder,
)
from umie.encoders.cache.cached_encoder import CachedEncoder
from umie.encoders.cache.store import FeatureCache
from umie.encoders.cache.stored_texts import StoredTexts
from umie.registry import Registry
from umie.types import VisualFeatures

registry: Registry[VisualEncoder] = registries.encoders


def build_preprocessor(encoder: Mapping[str, Any]) -> MediaPreprocessor:
    """Return the preprocessor of an encoder, specified by ``name`` and options, without building the encoder."""
    options = dict(encoder)
    name = options.pop("name", None)
    registry.check(name, options)
    part: Any = registry.get(name)
    preprocessor: MediaPreprocessor = part.Preprocessor(part.Config(**options))
    return preprocessor


def __getattr__(name: str) -> Any:
    if name in ("regions", "segments", "tracks"):  # imported on first use, because regions need torchvision
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


__all__ = [
    "AudioPreprocessor",
    "CachedEncoder",
    "EncoderConfig",
    "FeatureCache",
    "MediaPreprocessor",
    "Preprocessor",
    "StoredTexts",
    "VideoPreprocessor",
    "VisualEncoder",
    "VisualFeatures",
    "build_preprocessor",
    "registry",
]
