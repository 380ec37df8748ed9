"""Select proposals from candidate boxes, for all proposers: drop, suppress, order, cut."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torchvision.ops import box_iou, nms

from umie.records import Box

NOT_FINITE = "boxes not finite"
NO_AREA = "boxes without area"
OUTSIDE = "boxes outside the image"


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

    Args:
        candidates: the boxes that a proposer found.
        top: maximum number of proposals.
        overlap: intersection over union above which the worse of two boxes is removed; duplicates always are.
        min_score: candidates with lower scores are removed.
        taken: existing boxes; candidates that overlap them are removed, too.
        counts: the numbers of dropped boxes are added here, by reason.
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
