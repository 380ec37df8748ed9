"""Overlap of boxes and spans, and the largest one-to-one matching between two lists."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from umie.records import Box, Span
from umie.records.overlap import IOU_THRESHOLD, ROUNDING, iou

T = TypeVar("T")


def same_box(first: Box, second: Box) -> bool:
    """Return whether the IoU of two boxes is at least 0.5."""
    return iou(first, second) >= IOU_THRESHOLD - ROUNDING


def enclosing(boxes: Sequence[Box]) -> Box:
    """Return the smallest box that contains all of ``boxes`` (at least one)."""
    x1, y1, x2, y2 = zip(*boxes, strict=True)
    return (min(x1), min(y1), max(x2), max(y2))


def overlap(first: Span, second: Span) -> bool:
    """Return whether two spans share a character."""
    return first[0] < second[1] and second[0] < first[1]


def count_pairs(predicted: Sequence[T], gold: Sequence[T], fits: Callable[[T, T], bool]) -> int:
    """Return the number of pairs in the largest one-to-one matching of items that fit.

    Each item is used at most once, so that one large box cannot match two gold boxes, and two nearly identical boxes
    cannot both match the same gold box.
    """
    edges = [[fits(found, wanted) for wanted in gold] for found in predicted]
    degrees = [sum(row) for row in edges]
    if sum(degrees) <= 1 or (max(degrees) <= 1 and max(map(sum, zip(*edges, strict=True))) <= 1):
        return sum(degrees)  # no item has two candidates: the usual case
    import numpy as np
    from scipy.optimize import linear_sum_assignment

    matrix = np.array(edges, dtype=float)
    rows, columns = linear_sum_assignment(matrix, maximize=True)
    return int(matrix[rows, columns].sum())
