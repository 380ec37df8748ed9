"""Intervals in which a curve is high, with hysteresis."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

Levels = npt.NDArray[np.floating[Any]]


def high_intervals(
    levels: Levels,
    step: float,
    *,
    onset: float,
    release: float,
    min_length: float,
    min_gap: float,
    fall: float = math.inf,
) -> list[tuple[int, int]]:
    """Return the first frame of each interval, and the one after its last.

    Args:
        levels: the curve ``[frames]``.
        step: seconds from frame to frame.
        onset: the level that an interval has to exceed.
        release: the level down to which it extends on both sides.
        min_length: seconds of the shortest interval.
        min_gap: seconds of the shortest gap between two intervals.
        fall: how far below the peak of an interval it ends at the latest.
    """
    found: list[tuple[int, int]] = []
    for first, last in _runs(levels > release):
        peak = levels[first:last].max()
        for start, end in _runs(levels[first:last] > peak - fall):
            if levels[first + start : first + end].max() > onset:
                found.append((first + start, first + end))
    merged: list[tuple[int, int]] = []
    for start, end in found:
        if merged and (start - merged[-1][1]) * step < min_gap:
            start = merged.pop()[0]
        merged.append((start, end))
    return [(start, end) for start, end in merged if (end - start) * step >= min_length]


def _runs(inside: npt.NDArray[np.bool_]) -> list[tuple[int, int]]:
    """Return the start and the end of each run of True."""
    edges = np.flatnonzero(np.diff(inside, prepend=False, append=False))
    return list(zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True))
