"""Decoders: sequence-to-sequence language models with a fusion between encoder and decoder."""

from umie import registries
from umie.decoders.base import Decoder, DecoderConfig, DecoderOutput
from umie.registry import Registry

registry: Registry[Decoder] = registries.decoders

__all__ = ["Decoder", "DecoderConfig", "DecoderOutput", "registry"]
