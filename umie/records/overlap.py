"""Overlap of places: the IoU of two places in the same medium, and the recall of proposed ones."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, TypeAlias

from umie.records.places import Box, Region, Segment, Track

Place: TypeAlias = Region | Segment | Track
_ROUNDING = 1e-9


def place_iou(first: Place, second: Place) -> float:
    """Return the intersection over union (0..1) of two places: areas of boxes, lengths of intervals, or tracks.

    Tracks have the mean over the times of both: at each, the IoU of the boxes, interpolated where only the other track
    has a box at this time, and 0 where only one track is visible. Places in different media do not overlap.
    """
    if isinstance(first, Region) and isinstance(second, Region):
        return _box_iou(first.box, second.box)
    if isinstance(first, Segment) and isinstance(second, Segment):
        (start, end), (other, last) = first.interval, second.interval
        return max(0.0, min(end, last) - max(start, other)) / (max(end, last) - min(start, other))
    if isinstance(first, Track) and isinstance(second, Track):
        return _track_iou(first, second)
    return 0.0


def recall_of(proposed: Iterable[Place], annotated: Sequence[Place], threshold: float = 0.5) -> float:
    """Return the share of annotated places that a proposed one overlaps by at least ``threshold``; 1 if there are none.

    Args:
        proposed: the places that a proposer found.
        annotated: the places to find.
        threshold: the least IoU (0..1); 0.5 is that of grounded scores.
    """
    places = list(proposed)
    found = sum(any(place_iou(place, own) >= threshold - _ROUNDING for place in places) for own in annotated)
    return found / len(annotated) if annotated else 1.0


def extent(place: Place) -> tuple[Any, ...]:
    """Return where a place is, without its label."""
    if isinstance(place, Track):
        return place.times, place.boxes
    return (place.box, place.mask) if isinstance(place, Region) else place.interval


def _box_iou(first: Box, second: Box) -> float:
    width = min(first[2], second[2]) - max(first[0], second[0])
    height = min(first[3], second[3]) - max(first[1], second[1])
    shared = max(0.0, width) * max(0.0, height)
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (first, second)]
    return shared / (sum(areas) - shared)


def _track_iou(first: Track, second: Track) -> float:
    (start, end), (other, last) = first.interval, second.interval
    if min(end, last) < max(start, other):
        return 0.0
    values = []
    for time in sorted({*first.times, *second.times}):
        boxes = [box for box in (first.box_at(time), second.box_at(time)) if box is not None]
        if boxes:
            values.append(_box_iou(*boxes) if len(boxes) == 2 else 0.0)
    return sum(values) / len(values)
