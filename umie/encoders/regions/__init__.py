"""Where regions of interest come from: proposers find boxes in an image, which the encoders then look at."""

from umie import registries
from umie.encoders.regions.base import AnnotationError, PixelProposer, Proposal, Proposer, ProposerConfig
from umie.registry import Registry

registry: Registry[Proposer] = registries.region_proposers

__all__ = ["AnnotationError", "PixelProposer", "Proposal", "Proposer", "ProposerConfig", "registry"]
