"""Segment proposers: find intervals in a sound, whose features the encoders then compute."""

from umie import registries
from umie.encoders.proposing import AnnotationError, Candidates, PlaceProposer, ProposerConfig
from umie.records import Segment
from umie.registry import Registry

registry: Registry[PlaceProposer[Segment]] = registries.segment_proposers

__all__ = ["AnnotationError", "Candidates", "PlaceProposer", "ProposerConfig", "registry"]
