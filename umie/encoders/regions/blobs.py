"""`blobs`: bodies on a plain ground, as in drawings."""

from __future__ import annotations

import torch
from PIL import Image

from umie.encoders.blobs import BlobConfig, boxes_of, differs, ground_of, pixels_of
from umie.encoders.regions import registry
from umie.encoders.regions.base import Candidates, PixelProposer


@registry.register("blobs")
class BlobProposer(PixelProposer):
    """Connected pixels that differ from the color of the ground, the median of the borders; the largest come first.

    Bodies that touch are one blob. The score of a box is the share of the image that it covers.
    """

    Config = BlobConfig
    config: BlobConfig

    def _candidates(self, image: Image.Image, text: str | None) -> Candidates:
        pixels = pixels_of([image], self.config.max_side)
        (mask,) = differs(pixels, ground_of(pixels), self.config.threshold)
        boxes = torch.from_numpy(boxes_of(mask, self.config))
        return Candidates(boxes, (boxes[:, 2:] - boxes[:, :2]).prod(dim=1), [None] * len(boxes))
