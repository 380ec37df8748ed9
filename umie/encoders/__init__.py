"""Visual encoders: a picture and its regions of interest to VisualFeatures."""

from umie.encoders.base import EncoderConfig, Preprocessor, VisualEncoder
from umie.registry import Registry
from umie.types import VisualFeatures

registry: Registry[VisualEncoder] = Registry("encoder", __name__)

__all__ = ["EncoderConfig", "Preprocessor", "VisualEncoder", "VisualFeatures", "registry"]
