"""Decoders: sequence-to-sequence language models whose encoder states a fusion may change."""

from umie import registries
from umie.decoders.base import Decoder, DecoderConfig, DecoderOutput
from umie.registry import Registry

registry: Registry[Decoder] = registries.decoders

__all__ = ["Decoder", "DecoderConfig", "DecoderOutput", "registry"]
