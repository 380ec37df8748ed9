"""Read boxes from JSON files and make them relative."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, Literal

import torch

from umie.encoders.regions.select import Candidates
from umie.errors import UmieError, at, check_keys, shown

Unit = Literal["absolute", "relative"]

SLACK = {"absolute": 2.0, "relative": 0.01}  # by which rounding may put an edge outside the image


def read_regions(value: object, unit: Unit, size: Callable[[], tuple[int, int]]) -> Candidates:
    """Return the boxes of one image.

    Args:
        value: a list of ``{"box": [x1, y1, x2, y2], "label": ..., "score": ...}``, where label and score are optional,
            or ``{"width": ..., "height": ..., "regions": [...]}``.
        unit: whether the boxes are in pixels or relative to the image.
        size: returns width and height of the image in pixels; called if the value does not have them.

    Raises:
        UmieError: the value has another layout, a box is not four numbers or extends beyond the image, or no box in
            pixels is larger than one pixel.
    """
    regions, declared = _layout(value)
    limits = (1.0, 1.0)
    if unit == "absolute" and regions:
        limits = declared or size()
    boxes, scores, labels = [], [], []
    for number, region in enumerate(regions, start=1):
        with at(f"region {number}"):
            data = _mapping(region, "region", ("box", "label", "score"))
            boxes.append(_edges(data.get("box"), limits, unit))
            scores.append(1.0 if data.get("score") is None else _number(data["score"], "score"))
            label = data.get("label")
            if not isinstance(label, str | None):
                raise UmieError(f"label is {shown(label)}: use a string")
            labels.append(label)
    if unit == "absolute" and boxes and all(edge <= 1 for box in boxes for edge in box):
        raise UmieError("no edge is beyond 1 pixel: if the boxes are relative, set boxes='relative'")
    if not boxes:
        return Candidates()
    scale = torch.tensor([*limits, *limits], dtype=torch.float64)
    return Candidates(
        torch.tensor(boxes, dtype=torch.float64) / scale, torch.tensor(scores, dtype=torch.float64), labels
    )


def _layout(value: object) -> tuple[list[Any], tuple[float, float] | None]:
    """Return the regions, and width and height if they are declared."""
    declared = None
    if isinstance(value, Mapping):
        check_keys("image key", value, ("width", "height", "regions"))
        if "width" in value or "height" in value:
            declared = (_side(value, "width"), _side(value, "height"))
        value = value.get("regions")
    if not isinstance(value, list):
        raise UmieError(f"regions is {shown(value)}: expected a list of regions, each with a box")
    return value, declared


def _side(data: Mapping[str, Any], key: str) -> float:
    side = _number(data.get(key), key)
    if not 0 < side < math.inf:
        raise UmieError(f"{key} is {side}: use the image's size in pixels")
    return side


def _edges(box: object, limits: tuple[float, float], unit: str) -> list[float]:
    if not isinstance(box, list) or len(box) != 4:
        raise UmieError(f"box is {shown(box)}: expected [x1, y1, x2, y2]")
    edges = [_number(edge, "box") for edge in box]
    slack = SLACK[unit]
    for edge, limit in zip(edges, limits * 2, strict=True):
        if math.isfinite(edge) and not -slack <= edge <= limit + slack:
            inside = f"{limits[0]:g} x {limits[1]:g} pixels" if unit == "absolute" else "0..1"
            raise UmieError(
                f"box {shown(box)} is outside the image ({inside}): fix the box, or the unit, which is set to {unit}"
            )
    return edges


def _number(value: object, name: str) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise UmieError(f"{name} is {shown(value)}: expected a number")
    try:
        return float(value)
    except OverflowError as error:
        raise UmieError(f"{name} is {shown(value)}: too large a number") from error


def _mapping(value: object, kind: str, keys: tuple[str, ...]) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise UmieError(f"{kind} is {shown(value)}: expected a JSON object")
    check_keys(f"{kind} key", value, keys)
    return value
