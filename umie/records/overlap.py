"""Overlap of places in media: regions of an image, segments of a sound, tracks through a video."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

from umie.records.places import Box, Interval, Mask, Region, Segment, Track

Place: TypeAlias = Region | Segment | Track

IOU_THRESHOLD = 0.5
ROUNDING = 1e-9  # an IoU of exactly 0.5 must count even if relative coordinates are rounded


def iou(first: Box, second: Box) -> float:
    """Return the intersection over union (0..1) of two boxes ``(x1, y1, x2, y2)``."""
    width = min(first[2], second[2]) - max(first[0], second[0])
    height = min(first[3], second[3]) - max(first[1], second[1])
    if width <= 0 or height <= 0:
        return 0.0
    shared = width * height
    first_area, second_area = ((box[2] - box[0]) * (box[3] - box[1]) for box in (first, second))
    union = first_area + second_area - shared
    return shared / union if union else float(first == second)  # the areas of tiny boxes underflow to 0


def place_iou(first: Place, second: Place) -> float:
    """Return the intersection over union (0..1) of two places; 0 if they are in different media or images.

    Regions are compared by their masks if both have one of the same size, otherwise by their boxes. Tracks have the
    mean over the annotated times of both: at each, the IoU of the boxes, interpolated where only the other track is
    annotated, and 0 where only one track is visible. Times at which neither is visible do not count.
    """
    if isinstance(first, Region) and isinstance(second, Region):
        if first.image != second.image:
            return 0.0
        by_mask = _mask_iou(first.mask, second.mask)
        return iou(first.box, second.box) if by_mask is None else by_mask
    if isinstance(first, Segment) and isinstance(second, Segment):
        return _interval_iou(first.interval, second.interval)
    if isinstance(first, Track) and isinstance(second, Track):
        return _track_iou(first, second)
    return 0.0


def same_place(first: Place, second: Place) -> bool:
    """Return whether the IoU of two places is at least 0.5."""
    return place_iou(first, second) >= IOU_THRESHOLD - ROUNDING


def nearest_places(places: Sequence[Place], others: Sequence[Place]) -> dict[int, int]:
    """Return the index of the other place with the largest IoU, of at least 0.5, by the index of the place."""
    nearest = {}
    for index, place in enumerate(places):
        values = [place_iou(place, other) for other in others]
        if values and max(values) >= IOU_THRESHOLD - ROUNDING:
            nearest[index] = values.index(max(values))
    return nearest


def extent(place: Place) -> tuple[Any, ...]:
    """Return what identifies a place, whatever its label."""
    if isinstance(place, Region):
        return place.image, place.box, place.mask
    return place.interval if isinstance(place, Segment) else (place.times, place.boxes)


def _mask_iou(first: Mask | None, second: Mask | None) -> float | None:
    """Return the IoU of two masks, from their runs; None if they cannot be compared."""
    if first is None or second is None or first.size != second.size or not (first.area or second.area):
        return None
    import numpy as np

    ends = [np.cumsum(mask.counts) for mask in (first, second)]
    edges = np.union1d(*ends)
    lengths = np.diff(edges, prepend=0)
    inside = [np.searchsorted(own, edges) % 2 == 1 for own in ends]  # every second run is inside
    return float(lengths[inside[0] & inside[1]].sum() / lengths[inside[0] | inside[1]].sum())


def _interval_iou(first: Interval, second: Interval) -> float:
    shared = min(first[1], second[1]) - max(first[0], second[0])
    return 0.0 if shared <= 0 else shared / (max(first[1], second[1]) - min(first[0], second[0]))


def _track_iou(first: Track, second: Track) -> float:
    values = []
    for time in sorted({*first.times, *second.times}):
        one, other = first.box_at(time), second.box_at(time)
        if one is not None and other is not None:
            values.append(iou(one, other))
        elif one is not None or other is not None:
            values.append(0.0)
    return sum(values) / len(values)  # a track has a box
