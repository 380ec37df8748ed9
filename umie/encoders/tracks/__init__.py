"""Track proposers: find regions that move through a video, whose features the encoders then compute."""

from umie import registries
from umie.encoders.proposing import AnnotationError, Candidates, PlaceProposer, ProposerConfig
from umie.records import Track
from umie.registry import Registry

registry: Registry[PlaceProposer[Track]] = registries.track_proposers

__all__ = ["AnnotationError", "Candidates", "PlaceProposer", "ProposerConfig", "registry"]
