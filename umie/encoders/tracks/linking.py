"""Link boxes of consecutive frames to tracks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

import numpy as np

from umie.encoders.blobs import Boxes
from umie.records import Track

Closeness: TypeAlias = Callable[[Boxes, Boxes], Boxes]
Chain: TypeAlias = list[tuple[int, int]]
"""The frame and the number of each box of a track."""


def link(frames: Sequence[Boxes], closeness: Closeness, max_gap: int) -> list[Chain]:
    """Return the boxes that belong together, by maximum total closeness from frame to frame.

    A box that has no successor waits for one for ``max_gap`` frames, where it was.

    Args:
        frames: the boxes ``[N, 4]`` of each frame.
        closeness: of boxes ``[N, 4]`` and ``[M, 4]``: ``[N, M]``, greater than 0 where two may be the same body.
        max_gap: the most frames in a row in which a body may be missed.
    """
    from scipy.optimize import linear_sum_assignment  # here, because it is slow to import

    chains: list[Chain] = []
    for number, boxes in enumerate(frames):
        active = [chain for chain in chains if number - chain[-1][0] <= max_gap + 1]
        free = set(range(len(boxes)))
        if active and len(boxes):
            last = np.stack([frames[frame][index] for frame, index in (chain[-1] for chain in active)])
            close = np.maximum(closeness(last, boxes), 0.0)
            for row, column in zip(*linear_sum_assignment(close, maximize=True), strict=True):
                if close[row, column] > 0:
                    active[row].append((number, int(column)))
                    free.discard(int(column))
        chains.extend([(number, index)] for index in sorted(free))
    return chains


def track_of(chain: Chain, frames: Sequence[Boxes], times: Sequence[float], label: str | None = None) -> Track:
    """Return a chain as a track with a box at each of its frames; between them, boxes are interpolated."""
    boxes = tuple(tuple(frames[frame][index].tolist()) for frame, index in chain)
    return Track(tuple(times[frame] for frame, _ in chain), boxes, label)


def center_closeness(first: Boxes, second: Boxes, reach: float) -> Boxes:
    """Return 1 where centers and sizes are equal, 0 from a distance of ``reach`` mean diagonals ``[N, M]``."""
    centers = [(boxes[:, :2] + boxes[:, 2:]) / 2 for boxes in (first, second)]
    sizes = [boxes[:, 2:] - boxes[:, :2] for boxes in (first, second)]
    distances = np.linalg.norm(centers[0][:, None] - centers[1][None], axis=2)
    diagonals = [np.linalg.norm(size, axis=1) for size in sizes]
    growth = np.abs(np.log(sizes[0][:, None] / sizes[1][None])).sum(axis=2)  # 0.7 for twice the height
    closeness: Boxes = 1 - distances / (reach * (diagonals[0][:, None] + diagonals[1][None]) / 2) - growth / 4
    return closeness
