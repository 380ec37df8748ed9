"""Decoders: a text encoder, and what answers from the fused states, by generation or by scoring candidates."""

from umie import registries
from umie.decoders.base import (
    CandidateOptions,
    Decoder,
    DecoderConfig,
    DecoderOutput,
    GeneratingDecoder,
    ScoringDecoder,
)
from umie.registry import Registry

registry: Registry[Decoder] = registries.decoders

__all__ = [
    "CandidateOptions",
    "Decoder",
    "DecoderConfig",
    "DecoderOutput",
    "GeneratingDecoder",
    "ScoringDecoder",
    "registry",
]
