"""`grounding`: a zero-shot detector of transformers that looks for each phrase in an image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from umie.encoders.regions.base import select
from umie.encoders.regions.grounding import GroundingProposer, GroundingProposerConfig
from umie.errors import check_share
from umie.grounders import registry
from umie.grounders.base import Grounder, GrounderConfig
from umie.images import ImageSource, open_image
from umie.records import Region


@dataclass(frozen=True, kw_only=True)
class DetectorGrounderConfig(GrounderConfig):
    """Options of the zero-shot detectors.

    Args:
        checkpoint: a directory written by ``save_pretrained``, or a hub name; see the region proposer ``grounding``.
        nms: intersection over union above which the lower-scoring of two regions of a phrase is left out.
        min_score: the default suits OWL-ViT and OWLv2; use about 0.25 for Grounding DINO.
        device: where the detector runs, e.g. "cuda".
    """

    checkpoint: str | None = None
    nms: float = 0.5
    min_score: float = 0.1
    device: str = "cpu"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_share("nms", self.nms)


@registry.register("grounding")
class DetectorGrounder(Grounder):
    """The best boxes of a zero-shot detector for each phrase, in the place of SEEM in REAMO (2024)."""

    Config = DetectorGrounderConfig
    config: DetectorGrounderConfig
    medium = "image"

    def __init__(self, config: DetectorGrounderConfig) -> None:
        super().__init__(config)
        options = {"checkpoint": config.checkpoint, "device": config.device, "min_score": config.min_score}
        self._detector = GroundingProposer(GroundingProposerConfig(**options))  # type: ignore[arg-type] # by name

    def load_weights(self) -> None:
        """Load the checkpoint; raise UmieError if it is not one of a zero-shot detector with all its weights."""
        self._detector.load_weights()

    def find(self, source: ImageSource, phrases: Sequence[str], known: Sequence[Region] = ()) -> list[list[Region]]:
        """Return the regions that show each phrase."""
        found = self._detector.search(open_image(source), phrases)
        config = self.config
        chosen = [
            select(one, top=config.top, overlap=config.nms, min_score=config.min_score, counts=self.counts)
            for one in found
        ]
        return [[Region(item.box, phrase) for item in own] for phrase, own in zip(phrases, chosen, strict=True)]
