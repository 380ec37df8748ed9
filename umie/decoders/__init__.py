"""Decoders: sequence-to-sequence language models whose encoder states a fusion may change."""

from umie.decoders.base import Decoder, DecoderConfig, DecoderOutput
from umie.registry import Registry

registry: Registry[Decoder] = Registry("decoder", __name__)

__all__ = ["Decoder", "DecoderConfig", "DecoderOutput", "registry"]
