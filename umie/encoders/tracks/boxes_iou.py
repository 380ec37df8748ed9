"""`boxes_iou`: the boxes of a region proposer in some frames, linked where they overlap."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torchvision.ops import box_iou

from umie import registries
from umie.encoders.blobs import Boxes
from umie.encoders.proposing import Candidates, PlaceProposer, ProposerConfig
from umie.encoders.regions.base import Proposal
from umie.encoders.regions.base import Proposer as RegionProposer
from umie.encoders.tracks import registry
from umie.encoders.tracks.linking import link, track_of
from umie.errors import UmieError, check_share, check_whole, shown
from umie.media import open_clip
from umie.records import Track


@dataclass(frozen=True, kw_only=True)
class LinkedBoxesConfig(ProposerConfig):
    """Options of linked boxes.

    Args:
        proposer: the name and the options of a region proposer, e.g. ``{name: faster_rcnn, weights: COCO_V1}``.
        num_frames: the most frames of a clip that are read.
        min_iou: the least intersection over union of a body's boxes in two frames in a row.
        max_gap: the most frames in a row in which a body may be missed.
        min_frames: the fewest frames of a track, in clips that have as many.
    """

    proposer: Mapping[str, Any] = field(default_factory=lambda: {"name": "grid"})
    num_frames: int = 16
    min_iou: float = 0.2
    max_gap: int = 1
    min_frames: int = 2

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, least in (("num_frames", 1), ("max_gap", 0), ("min_frames", 1)):
            check_whole(name, getattr(self, name), least)
        check_share("min_iou", self.min_iou)
        if not isinstance(self.proposer, Mapping) or "name" not in self.proposer:
            raise UmieError(
                f"proposer is {shown(self.proposer)}: use the name and options of a region proposer, e.g. "
                "{name: grid, top: 4}"
            )


@registry.register("boxes_iou")
class LinkedBoxesProposer(PlaceProposer[Track]):
    """The boxes of any region proposer in evenly spaced frames, linked by IoU if they have the same label.

    The score of a track is the mean of its boxes' scores, times the share of the frames in which it has a box.
    """

    Config = LinkedBoxesConfig
    medium = "video"
    config: LinkedBoxesConfig

    def __init__(self, config: LinkedBoxesConfig) -> None:
        super().__init__(config)
        options = dict(config.proposer)
        self.regions: RegionProposer = registries.region_proposers.build(options.pop("name"), **options)
        self.reads_text = self.regions.reads_text  # type: ignore[misc] # as that of this proposer
        if self.regions.config.has_random_weights:
            option = self.regions.config.weights_option
            raise UmieError(
                f"proposer is {shown(dict(config.proposer))}: its weights would be random; set its {option}"
            )

    def candidates(self, source: Any, text: str | None, name: str | None) -> Candidates[Track]:
        """Return the tracks through a clip; see ``MediumProposer.candidates``."""
        config = self.config
        clip = open_clip(source, config.num_frames)
        proposed = self.regions.propose(clip.frames, [text] * len(clip.frames))
        found = Candidates[Track]()
        least = min(config.min_frames, len(proposed))
        for label in sorted({item.label or "" for items in proposed for item in items}):
            named = [[item for item in items if (item.label or "") == label] for items in proposed]
            frames = [_table(items) for items in named]
            for chain in link(frames, self._closeness, config.max_gap):
                if len(chain) >= least:
                    score = sum(named[frame][index].score for frame, index in chain) / len(frames)
                    found.found.append((track_of(chain, frames, clip.times, label or None), score))
        return found

    def _closeness(self, last: Boxes, boxes: Boxes) -> Boxes:
        ious: Boxes = box_iou(torch.from_numpy(last), torch.from_numpy(boxes)).numpy()
        return np.where(ious >= self.config.min_iou, ious, 0.0)


def _table(items: list[Proposal]) -> Boxes:
    return np.array([item.box for item in items], np.float64).reshape(-1, 4)
