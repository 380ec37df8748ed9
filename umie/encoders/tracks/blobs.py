"""`blobs`: bodies that differ from the ground, or from what the camera sees most of the time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np

from umie.encoders.blobs import BlobConfig, Mask, boxes_of, differs, ground_of, pixels_of
from umie.encoders.proposing import Candidates, PlaceProposer
from umie.encoders.tracks import registry
from umie.encoders.tracks.linking import center_closeness, link, track_of
from umie.errors import check_choice, check_positive, check_whole
from umie.media import Clip, open_clip
from umie.records import Track

Background = Literal["auto", "ground", "median"]

_PLAIN = 0.6  # share of the pixels that have the color of the ground, if it is plain


@dataclass(frozen=True, kw_only=True)
class BlobTrackConfig(BlobConfig):
    """Options of tracks of blobs.

    Args:
        num_frames: the most frames of a clip that are read.
        background: what bodies differ from: "ground", one color, the median of the frames' borders; "median", the
            median of each pixel over the frames, for a camera that does not move; "auto": the ground if most pixels
            have its color.
        reach: how far a body moves from frame to frame at most, in diagonals of its box.
        max_gap: the most frames in a row in which a body may be missed.
        min_frames: the fewest frames of a track, in clips that have as many.
    """

    num_frames: int = 32
    background: Background = "auto"
    reach: float = 1.0
    max_gap: int = 2
    min_frames: int = 3

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, least in (("num_frames", 1), ("max_gap", 0), ("min_frames", 1)):
            check_whole(name, getattr(self, name), least)
        check_choice("background", self.background, get_args(Background))
        check_positive("reach", self.reach)


@registry.register("blobs")
class BlobTrackProposer(PlaceProposer[Track]):
    """Connected pixels that differ from the background, linked from frame to frame by their centers and sizes.

    Bodies that touch are one blob. The score of a track is the share of the frames in which it has a box.
    """

    Config = BlobTrackConfig
    medium = "video"
    config: BlobTrackConfig

    def candidates(self, source: Any, text: str | None, name: str | None) -> Candidates[Track]:
        """Return the tracks through a clip; see ``MediumProposer.candidates``."""
        config = self.config
        clip = open_clip(source, config.num_frames)
        frames = [boxes_of(mask, config) for mask in self._masks(clip)]
        chains = link(frames, lambda last, boxes: center_closeness(last, boxes, config.reach), config.max_gap)
        least = min(config.min_frames, len(frames))
        return Candidates(
            [(track_of(chain, frames, clip.times), len(chain) / len(frames)) for chain in chains if len(chain) >= least]
        )

    def _masks(self, clip: Clip) -> Mask:
        """Return the pixels of bodies ``[frames, height, width]``."""
        config = self.config
        pixels = pixels_of(clip.frames, config.max_side)
        masks = differs(pixels, ground_of(pixels), config.threshold)
        is_plain = config.background == "ground"
        if config.background == "auto":
            is_plain = 1 - masks.mean() >= _PLAIN
        return masks if is_plain else differs(pixels, np.median(pixels, axis=0), config.threshold)
