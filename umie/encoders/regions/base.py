"""The proposer contract: images, and texts if needed, to candidates; their selection; records with regions."""

from __future__ import annotations

from abc import abstractmethod
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from PIL import Image
from torch import Tensor
from torchvision.ops import box_iou, nms

from umie.encoders.proposing import AnnotationError, MediumProposer, ProposerConfig, file_name
from umie.errors import UmieError, shown
from umie.images import ImageSource, open_image
from umie.records import Box, Region
from umie.weights import first_line

__all__ = ["AnnotationError", "PixelProposer", "Proposal", "Proposer", "ProposerConfig", "select"]

NOT_FINITE = "boxes not finite"
NO_AREA = "boxes without area"
OUTSIDE = "boxes outside the image"
MAX_ASPECT = 8  # detectors would scale a longer image to a side of 0 pixels
MIN_SIDE = 32  # pixels; image processors mistake a side of 1 or 3 pixels for the channels
MAX_SIDE = 2048  # pixels of the long side of a resized image


@dataclass(frozen=True)
class Proposal:
    """A box that a proposer found, relative to the image as displayed (x1, y1, x2, y2 in 0..1)."""

    box: Box
    score: float
    label: str | None = None


@dataclass(frozen=True)
class Candidates:
    """The boxes that a proposer found in an image, before selection.

    Boxes ``[N, 4]`` are x1, y1, x2, y2, relative to the image; they may extend beyond it or be invalid.
    """

    boxes: Tensor = field(default_factory=lambda: torch.zeros(0, 4))
    scores: Tensor = field(default_factory=lambda: torch.zeros(0))  # [N], higher is better
    labels: Sequence[str | None] = ()  # N names of the objects in the boxes
    dropped: Mapping[str, int] = field(default_factory=dict)  # number of boxes already dropped, by reason


class Proposer(MediumProposer[Candidates]):
    """Finds boxes in images; subclasses implement ``candidates``, and the selection is common to all.

    Images are processed one by one: in a batch they would be padded to a common size, and a detector's boxes would
    depend on the other images.
    """

    medium = "image"

    @abstractmethod
    def candidates(self, image: ImageSource, text: str | None, name: str | None) -> Candidates:
        """Return the boxes found in an image, before selection; ``name`` is its file name, if it has one.

        Raises:
            UmieError: the image, or its annotation (AnnotationError), cannot be read.
        """

    def propose(self, images: Sequence[ImageSource], texts: Sequence[str | None] | None = None) -> list[list[Proposal]]:
        """Return the proposals of each image, best first, at most ``top``; most proposers do not need the texts."""
        texts = [None] * len(images) if texts is None else texts
        if len(texts) != len(images):
            raise UmieError(f"{len(texts)} texts for {len(images)} images: pass one for each")
        pairs = zip(images, texts, strict=True)
        return [self._selected(self.candidates(image, text, file_name(image))) for image, text in pairs]

    def _chosen(self, found: Candidates, own: Sequence[Region]) -> list[Region]:
        return [Region(item.box, item.label) for item in self._selected(found, [region.box for region in own])]

    def _selected(self, candidates: Candidates, taken: Sequence[Box] = ()) -> list[Proposal]:
        boxes = candidates.boxes
        self.num_found += len(boxes) + sum(candidates.dropped.values())
        is_beyond = (boxes[:, :2] < 0).any(1) | (boxes[:, 2:] > 1).any(1)
        self.num_clipped += int((is_beyond & (boxes[:, :2] < 1).all(1) & (boxes[:, 2:] > 0).all(1)).sum())
        top, overlap, min_score = self.config.top - len(taken), self.config.nms, self.config.min_score
        return select(candidates, top=top, overlap=overlap, min_score=min_score, taken=taken, counts=self.counts)


class PixelProposer(Proposer):
    """A proposer that uses the image's pixels; subclasses implement ``_candidates``."""

    def candidates(self, image: ImageSource, text: str | None, name: str | None) -> Candidates:
        """Open the image and return the boxes found in it; see ``Proposer.candidates``."""
        opened = open_image(image)
        try:
            return self._candidates(opened, text)
        except UmieError:
            raise
        except (RuntimeError, ValueError) as error:  # one image that a detector cannot process must not end a run
            image_name = f"{name or 'image'} ({opened.width} x {opened.height})"
            raise UmieError(
                f"{image_name}: the detector failed ({first_line(error)}): remove the image, or use another detector "
                "or device"
            ) from error

    @abstractmethod
    def _candidates(self, image: Image.Image, text: str | None) -> Candidates:
        """Return the boxes found in an image in RGB, as displayed; boxes are relative to it."""


def select(
    candidates: Candidates,
    *,
    top: int,
    overlap: float,
    min_score: float = 0.0,
    taken: Sequence[Box] = (),
    counts: Counter[str] | None = None,
) -> list[Proposal]:
    """Return the best valid candidates, best first, without those that overlap a better one.

    Boxes are clipped to the image. Equal scores are ordered by box, from the top left, then by label, so that the order
    of the candidates never matters. Suppression ignores labels (``nms``, not ``batched_nms``): a slot of an encoder is
    a place, and a place with two names would use two slots for the same pixels.

    ``overlap`` is the intersection over union above which the worse of two boxes is removed; duplicates always are, and
    candidates that overlap a ``taken`` box. The numbers of invalid boxes are added to ``counts``, by reason.
    """
    boxes = candidates.boxes.detach().to("cpu", torch.float64)
    scores = candidates.scores.detach().to("cpu", torch.float64)
    clipped = boxes.clamp(0, 1)
    finite = boxes.isfinite().all(1) & scores.isfinite()
    area = (boxes[:, :2] < boxes[:, 2:]).all(1)
    inside = (clipped[:, :2] < clipped[:, 2:]).all(1)
    if counts is not None:
        counts.update(candidates.dropped)
        reasons = {NOT_FINITE: ~finite, NO_AREA: finite & ~area, OUTSIDE: finite & area & ~inside}
        counts.update({reason: number for reason, which in reasons.items() if (number := int(which.sum()))})
    keep = finite & area & inside & (scores >= min_score)
    boxes, scores = clipped[keep], scores[keep]
    labels = [label for label, kept in zip(candidates.labels, keep.tolist(), strict=True) if kept]
    found = [
        Proposal((x1, y1, x2, y2), score, label)
        for (x1, y1, x2, y2), score, label in zip(boxes.tolist(), scores.tolist(), labels, strict=True)
    ]
    unique: dict[Box, Proposal] = {}  # nms with an overlap of 1 would keep duplicates
    for proposal in sorted(found, key=_rank):
        unique.setdefault(proposal.box, proposal)
    found = [proposal for box, proposal in unique.items() if box not in set(taken)]
    if not found:
        return []
    ordered = torch.tensor([proposal.box for proposal in found], dtype=torch.float64)
    others = torch.tensor(taken, dtype=torch.float64).view(-1, 4)
    free = (box_iou(ordered, others) <= overlap).all(1).nonzero().squeeze(1)
    # ranks replace scores: no two are equal, so nms has no ties to break
    ranks = -torch.arange(len(free), dtype=torch.float64)
    best = free[nms(ordered[free], ranks, overlap)][:top]
    return [found[index] for index in best.tolist()]


def _rank(proposal: Proposal) -> tuple[float | str, ...]:
    x1, y1, x2, y2 = proposal.box
    return (-proposal.score, y1, x1, y2, x2, proposal.label or "")


def clamp_aspect_ratio(image: Image.Image) -> Image.Image:
    """Return an image for a detector, resized if it is tiny or much longer than wide; relative boxes stay the same."""
    short, long = sorted(image.size)
    if short >= MIN_SIDE and long <= short * MAX_ASPECT:
        return image
    scale = min(1.0, MAX_SIDE / long)
    least = max(MIN_SIDE, round(long * scale / MAX_ASPECT))
    width, height = (max(round(side * scale), least) for side in image.size)
    return image.resize((width, height), Image.Resampling.BILINEAR)


def check_device(device: object) -> None:
    """Raise UmieError unless tensors can be created on the device."""
    try:
        torch.zeros(1).to(device)  # type: ignore[call-overload] # whatever it is
    except Exception as error:
        raise UmieError(f"device is {shown(device)}: cannot be used ({first_line(error)}); use e.g. cpu") from error
