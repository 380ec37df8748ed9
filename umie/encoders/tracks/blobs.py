"""`blobs`: bodies that differ from the ground, or from what the camera sees most of the time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt
from PIL import Image

from umie.encoders.proposing import Candidates, PlaceProposer, ProposerConfig
from umie.encoders.tracks import registry
from umie.encoders.tracks.linking import Boxes, center_closeness, link, track_of
from umie.errors import check_choice, check_positive, check_share, check_whole
from umie.media import open_clip
from umie.records import Track

Background = Literal["auto", "ground", "median"]
Pixels = npt.NDArray[np.uint8]

_PLAIN = 0.6  # share of the pixels that have the color of the ground, if it is plain


@dataclass(frozen=True, kw_only=True)
class BlobProposerConfig(ProposerConfig):
    """Options of tracks of blobs.

    Args:
        num_frames: the most frames of a clip that are read.
        max_side: pixels of the long side to which larger frames are reduced.
        background: what bodies differ from: "ground", one color, the median of the frames' borders; "median", the
            median of each pixel over the frames, for a camera that does not move; "auto": the ground if most pixels
            have its color.
        threshold: difference of a color channel (1 to 255) from which on a pixel is part of a body.
        close: share of the long side (0..1) up to which gaps inside a body are filled; 0 for none.
        min_area: share of the frame (0..1) that a body's box covers at least.
        reach: how far a body moves from frame to frame at most, in diagonals of its box.
        max_gap: the most frames in a row in which a body may be missed.
        min_frames: the fewest frames of a track, in clips that have as many.
    """

    num_frames: int = 32
    max_side: int = 360
    background: Background = "auto"
    threshold: int = 30
    close: float = 0.01
    min_area: float = 0.001
    reach: float = 1.0
    max_gap: int = 2
    min_frames: int = 3

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, least in (("num_frames", 1), ("max_side", 8), ("threshold", 1), ("max_gap", 0)):
            check_whole(name, getattr(self, name), least)
        check_whole("min_frames", self.min_frames, 1)
        check_choice("background", self.background, get_args(Background))
        check_share("close", self.close)
        check_share("min_area", self.min_area)
        check_positive("reach", self.reach)


@registry.register("blobs")
class BlobProposer(PlaceProposer[Track]):
    """Connected pixels that differ from the background, linked from frame to frame by their centers and sizes.

    Bodies that touch are one blob. The score of a track is the share of the frames in which it has a box.
    """

    Config = BlobProposerConfig
    medium = "video"
    config: BlobProposerConfig

    def candidates(self, source: Any, text: str | None, name: str | None) -> Candidates[Track]:
        """Return the tracks through a clip; see ``MediumProposer.candidates``."""
        config = self.config
        clip = open_clip(source, config.num_frames)
        frames = [self._boxes(mask) for mask in self._masks(clip.frames)]
        chains = link(frames, lambda last, boxes: center_closeness(last, boxes, config.reach), config.max_gap)
        least = min(config.min_frames, len(frames))
        return Candidates(
            [(track_of(chain, frames, clip.times), len(chain) / len(frames)) for chain in chains if len(chain) >= least]
        )

    def _masks(self, images: Sequence[Image.Image]) -> npt.NDArray[np.bool_]:
        """Return the pixels of bodies ``[frames, height, width]``; all frames get the size of the first one."""
        width, height = images[0].size
        scale = min(1.0, self.config.max_side / max(width, height))
        size = max(1, round(width * scale)), max(1, round(height * scale))
        pixels = np.stack(
            [np.asarray(image if image.size == size else image.resize(size, Image.Resampling.BOX)) for image in images]
        )
        borders = [pixels[:, 0], pixels[:, -1], pixels[:, :, 0], pixels[:, :, -1]]
        ground = np.median(np.concatenate([border.reshape(-1, 3) for border in borders]), axis=0)
        masks = self._differs(pixels, ground)
        is_plain = (
            1 - masks.mean() >= _PLAIN if self.config.background == "auto" else self.config.background == "ground"
        )
        return masks if is_plain else self._differs(pixels, np.median(pixels, axis=0))

    def _differs(self, pixels: Pixels, background: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
        masks: npt.NDArray[np.bool_] = np.stack(
            [np.abs(frame - background).max(axis=-1) >= self.config.threshold for frame in pixels]
        )
        return masks

    def _boxes(self, mask: npt.NDArray[np.bool_]) -> Boxes:
        """Return the boxes of the connected pixels of a frame, relative to it ``[N, 4]``."""
        from scipy import ndimage  # here, because it is slow to import

        neighbors = np.ones((3, 3), bool)
        close = int(self.config.close * max(mask.shape) / 2)  # of both sides of a gap
        filled = ndimage.binary_closing(np.pad(mask, close), neighbors, close) if close else mask
        numbered, _ = ndimage.label(filled[close : close + mask.shape[0], close : close + mask.shape[1]], neighbors)
        height, width = mask.shape
        boxes = [
            (across.start / width, down.start / height, across.stop / width, down.stop / height)
            for down, across in ndimage.find_objects(numbered)
        ]
        table = np.array(boxes, np.float64).reshape(-1, 4)
        areas = (table[:, 2] - table[:, 0]) * (table[:, 3] - table[:, 1])
        return table[areas >= self.config.min_area]
