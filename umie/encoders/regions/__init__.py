"""Region proposers: find boxes in an image, whose features the encoders then compute."""

from umie import registries
from umie.encoders.regions.base import AnnotationError, PixelProposer, Proposal, Proposer, ProposerConfig
from umie.registry import Registry

registry: Registry[Proposer] = registries.region_proposers

__all__ = ["AnnotationError", "PixelProposer", "Proposal", "Proposer", "ProposerConfig", "registry"]
