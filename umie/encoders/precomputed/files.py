"""Region features of one image from a file of any format: select arrays, check them, make boxes relative."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, TypeAlias

import numpy as np
from numpy.typing import NDArray

from umie.checkpoints import check_file
from umie.errors import UmieError, at, shown
from umie.weights import first_line

Array: TypeAlias = NDArray[Any]
Layout: TypeAlias = Mapping[str, str]  # role to the name of an array in the file

ROLES = ("id", "features", "boxes", "width", "height", "count", "whole")
SIZED = {"absolute": "xywh", "relative": "relative_xywh"}  # the form of boxes as x, y, width, height, for each unit
BOXES = (*SIZED, *SIZED.values())
WHOLE = ("mean", "first", "file")
MAX_BYTES = 256 << 20  # per array; an image with 100 boxes has less than 1 MiB of features
MAX_VALUE = 1e6  # features of detectors and of CLIP are below 1e3; another byte order or type gives any magnitude
_SLACK = 2  # pixels by which rounding may put an edge outside the image, as for annotated boxes
_RELATIVE_SLACK = 1e-3  # the same for relative edges of images of unknown size


def _names(features: str, boxes: str, width: str, height: str, **more: str) -> Layout:
    return {"features": features, "boxes": boxes, "width": width, "height": height, **more}


# The layout used is the one with most names in the file, features and boxes among them. `keys` overrides names.
LAYOUTS: Mapping[str, Sequence[Layout]] = {
    "npz": (
        _names("box_features", "bounding_boxes", "image_w", "image_h", count="num_boxes"),  # VinVL
        _names("x", "bbox", "image_w", "image_h", count="num_bbox"),  # bottom-up attention, PyTorch versions
    ),
    "h5": (
        _names("regions", "bbox", "img_w", "img_h", whole="fc_features"),  # UMIE's release
        _names("features", "boxes", "img_w", "img_h"),  # VL-T5
    ),
    "tsv": (
        _names("features", "boxes", "img_w", "img_h", count="num_boxes", id="img_id"),  # LXMERT
        _names("features", "boxes", "image_w", "image_h", count="num_boxes", id="image_id"),  # bottom-up attention
    ),
    "safetensors": (_names("features", "boxes", "image_w", "image_h", whole="whole"),),
}


@dataclass(frozen=True)
class ImageFeatures:
    """The features of one image, as float32."""

    place: str  # the file and entry, for messages
    features: Array  # [N, Dv], one row per usable box, in the file's order
    boxes: Array  # [N, 4] as x1, y1, x2, y2, relative to the image (0..1)
    whole: Array  # [Dv], features of the whole image
    dropped: Mapping[str, int]  # number of boxes left out, by reason: outside, no_area, not_finite
    fit_as_sizes: tuple[int, int]  # boxes that would also fit as x, y, width, height, and those that would not


@dataclass
class Entry:
    """The arrays of one image in a file, read on demand."""

    place: str  # the file and entry, for messages
    names: Collection[str]
    array: Callable[[str], Array]  # raises UmieError, without the place, for one that is damaged or above MAX_BYTES
    is_padded: ClassVar[bool] = True  # whether arrays may have more rows than the image has boxes

    def matrix(self, name: str, rows: int | None = None, columns: int | None = None) -> Array:
        """Return an array; an array stored without its shape gets the given one."""
        return self.array(name)

    def number(self, name: str) -> float:
        """Return the value of an array with one element."""
        array = self.array(name)
        if array.size != 1 or array.dtype.kind not in "fiu":
            raise UmieError(f"{name} is an array {list(array.shape)} of {array.dtype}: expected one number")
        return float(array.reshape(()))


@contextmanager
def readable(what: str, path: Path | None = None) -> Iterator[None]:
    """Raise any error of reading a damaged file as a UmieError of one line; ``path`` is a file that is opened."""
    try:
        yield
    except (UmieError, ImportError):
        raise
    except Exception as error:  # zipfile, numpy, h5py and safetensors raise nearly anything
        if path is not None:
            check_file(path)
        raise UmieError(f"not readable as {what} ({first_line(error)}): download or create it again") from error


def check_bytes(name: str, shape: Sequence[int], itemsize: int) -> None:
    """Raise UmieError for an array larger than MAX_BYTES, before it is allocated; files may declare any size."""
    size = itemsize * math.prod(map(int, shape))
    if not 0 <= size <= MAX_BYTES:
        raise UmieError(f"{name} is {list(shape)}, {size:,} bytes: too large for one image (limit {MAX_BYTES:,})")


def image_features(
    entry: Entry, layouts: Sequence[Layout], keys: Layout, boxes: str, whole: str | None
) -> ImageFeatures:
    """Return the features of one image: only usable boxes, in relative coordinates.

    Of the layouts, the best match is used. See ``PrecomputedEncoderConfig`` for the other options.

    Raises:
        UmieError: arrays are missing or inconsistent, features are not finite, there is nothing to average, or the
            boxes clearly are not in the declared unit.
    """
    with at(entry.place):
        names = _layout(entry, layouts, keys)
        box_rows = _floats(entry.matrix(names["boxes"], columns=4), names["boxes"], np.float64)
        if box_rows.size and (box_rows.ndim != 2 or box_rows.shape[1] != 4):
            raise UmieError(f"{names['boxes']} is {list(box_rows.shape)}: expected [N, 4]")
        box_rows = box_rows.reshape(-1, 4)
        count = _count(entry, names, len(box_rows))
        rows = _floats(entry.matrix(names["features"], rows=len(box_rows)), names["features"], np.float32)
        if rows.ndim != 2:
            raise UmieError(f"{names['features']} is {list(rows.shape)}: expected [N, Dv]")
        # VQA projects store bottom-up features as [Dv, N] under the same names; the number of boxes tells them apart
        if rows.shape[0] != len(box_rows) and rows.shape[1] == len(box_rows) > 1:
            rows = rows.T
        size = _size(entry, names, boxes)
        own = _own_whole(entry, names, whole)
        if len(box_rows) == len(rows) + 1 and names.get("whole") in entry.names:
            box_rows, count = _without_whole(box_rows, size, names), count and count - 1
        if len(rows) != len(box_rows):
            raise UmieError(
                f"{names['features']} has {len(rows)} rows but {names['boxes']} has {len(box_rows)}: they must match"
            )
        rows, box_rows = rows[:count], box_rows[:count]
        _check_values(names["features"], rows)
        if whole == "first":
            if not len(rows):
                raise UmieError("there is no first row to use for the whole image")
            own, rows, box_rows = rows[0], rows[1:], box_rows[1:]
        if boxes in SIZED.values():
            box_rows = np.hstack([box_rows[:, :2], box_rows[:, :2] + box_rows[:, 2:]])
        relative, keep, dropped = _usable(box_rows, size, boxes)
        rows, relative = rows[keep], relative[keep]
        if own is None:
            if not len(rows):
                raise UmieError("there is no usable box to average: fix the file, or choose another `whole`")
            own = rows.mean(0, dtype=np.float64).astype(np.float32)
        if len(rows) and own.shape[0] != rows.shape[1]:
            raise UmieError(
                f"the whole image's vector has width {own.shape[0]}, the regions' {rows.shape[1]}: compute the "
                "features again, or choose whole='mean'"
            )
        return ImageFeatures(
            entry.place, rows.reshape(len(rows), own.shape[0]), relative, own, dropped, _fit_as_sizes(relative)
        )


def _check_values(name: str, rows: Array) -> None:
    """Raise UmieError for features ``[N, Dv]`` that are not finite, huge, or all 0."""
    if not (finite := np.isfinite(rows).all(1)).all():
        raise UmieError(f"{name}: row {int(finite.argmin())} is not finite: compute the features again")
    if rows.size and (most := np.abs(rows).max()) > MAX_VALUE:
        raise UmieError(f"{name}: has the value {most:g}, features have none above {MAX_VALUE:g}: wrong type or order?")
    if rows.size and not most:
        raise UmieError(f"{name}: all values are 0: compute the features again")


def _fit_as_sizes(boxes: Array) -> tuple[int, int]:
    """Return the numbers of relative corners that would, or would not, be in the image as x, y, width, height.

    Of true corners, those in the right or lower half would not. Boxes that begin at 0, 0 say nothing.
    """
    told = boxes[boxes[:, :2].max(1, initial=0) > _RELATIVE_SLACK]
    fits = (told[:, :2] + told[:, 2:] <= 1 + _RELATIVE_SLACK).all(1)
    return int(fits.sum()), int((~fits).sum())


def _layout(entry: Entry, layouts: Sequence[Layout], keys: Layout) -> Layout:
    """Return the layout with the most names in the entry; features and boxes are required."""
    known: list[Layout] = [{**layout, **keys} for layout in layouts]
    fitting = [names for names in known if {names["features"], names["boxes"]} <= set(entry.names)]
    if fitting:
        return max(fitting, key=lambda names: len(set(names.values()) & set(entry.names)))
    tried = dict.fromkeys(f"{names['features']} and {names['boxes']}" for names in known)
    raise UmieError(
        f"expected {' or '.join(tried)}, found {shown(', '.join(sorted(entry.names)))}: set their names in `keys`, "
        "e.g. {'features': ..., 'boxes': ...}"
    )


def _floats(array: Array, name: str, dtype: type) -> Array:
    if array.dtype.kind != "f" and not (dtype is np.float64 and array.dtype.kind in "iu"):
        raise UmieError(f"{name} is of {array.dtype}: expected floating-point numbers")
    with np.errstate(over="ignore", invalid="ignore"):  # an overflow is later reported as not finite
        return array.astype(dtype)


def _count(entry: Entry, names: Layout, limit: int) -> int | None:
    """Return the number of rows that are not padding, if the file has it."""
    if names.get("count") not in entry.names:
        return None
    count = entry.number(names["count"])
    if not 0 <= count <= limit or count != int(count):
        raise UmieError(
            f"{names['count']} is {count:g}: expected a whole number from 0 to {limit}, the number of rows of "
            f"{names['boxes']}"
        )
    if not entry.is_padded and count != limit:
        raise UmieError(
            f"{names['count']} is {count:g}, but {names['boxes']} has {limit} rows of 4 numbers of float32: other "
            "types, such as float64, are not read"
        )
    return int(count)


def _size(entry: Entry, names: Layout, boxes: str) -> tuple[float, float] | None:
    """Return width and height of the image; None if the file has none and relative boxes need none."""
    missing = [names[role] for role in ("width", "height") if names[role] not in entry.names]
    if missing:
        if boxes in ("relative", SIZED["relative"]):
            return None
        raise UmieError(
            f"has no {' and no '.join(missing)}, which absolute boxes are divided by: set their names in `keys`"
        )
    width, height = entry.number(names["width"]), entry.number(names["height"])
    if not (0 < width < np.inf and 0 < height < np.inf):
        raise UmieError(f"the image's size is {width:g} x {height:g}: expected two numbers above 0")
    return width, height


def _own_whole(entry: Entry, names: Layout, whole: str | None) -> Array | None:
    """Return the file's own vector of the whole image, if there is one and ``whole`` uses it."""
    name = names.get("whole", "")
    if whole not in (None, "file") or (whole is None and name not in entry.names):
        return None
    if name not in entry.names:
        raise UmieError(
            f"has no vector {name} of the whole image: set its name in `keys`, {{'whole': ...}}, or choose whole='mean'"
        )
    vector = _floats(entry.array(name), name, np.float32)
    if vector.ndim == 0 or vector.size != vector.shape[-1]:
        raise UmieError(f"{name} is {list(vector.shape)}: expected one vector [Dv]")
    if not np.isfinite(vector).all():
        raise UmieError(f"{name} is not finite: compute the features again")
    _check_values(name, vector.reshape(1, -1))
    return vector.reshape(-1)


def _without_whole(boxes: Array, size: tuple[float, float] | None, names: Layout) -> Array:
    """Return the boxes without the first, which is the whole image's if there is one more box than regions."""
    edges = [(0, 0, 0, 0), (0, 0, 1, 1), (0, 0, *(size or (1, 1)))]
    if not any(np.abs(boxes[0] - edge).max() <= (_SLACK if max(edge) > 1 else _RELATIVE_SLACK) for edge in edges):
        raise UmieError(
            f"{names['boxes']} has one row more than {names['features']}, and the first, {shown(boxes[0].tolist())}, "
            "is not the whole image"
        )
    return boxes[1:]


def _usable(boxes: Array, size: tuple[float, float] | None, declared: str) -> tuple[Array, Array, Counter[str]]:
    """Return relative boxes (float32), a mask of the usable ones, and the number of others by reason."""
    declared = next(unit for unit, sized in SIZED.items() if declared in (unit, sized))
    scale = np.array([*size, *size]) if size else np.ones(4)
    relative = boxes / scale if declared == "absolute" else boxes
    slack = _SLACK / scale if size else np.full(4, _RELATIVE_SLACK)
    finite = np.all(np.isfinite(boxes), axis=1)
    with np.errstate(invalid="ignore"):
        inside = np.all((relative >= -slack) & (relative <= 1 + slack), axis=1)
        relative = np.clip(relative, 0, 1).astype(np.float32)
    has_area = np.all(relative[:, :2] < relative[:, 2:], axis=1)
    keep, outside = finite & inside & has_area, finite & ~inside
    # the unit is not guessed, as a guess could be wrong
    if declared == "relative" and not keep.any() and outside.any() and boxes[outside].max() > 2:
        raise UmieError(
            f"box {shown(boxes[outside][0].tolist())} is not relative (0..1), nor is any other: if they are in pixels, "
            "set boxes='absolute'"
        )
    if declared == "absolute" and size and max(size) > 2 and keep.any() and boxes[keep].max() <= 1:
        raise UmieError(
            f"no box is larger than one pixel, e.g. {shown(boxes[keep][0].tolist())}: if they are relative (0..1), "
            "set boxes='relative'"
        )
    real = boxes[finite]
    if declared == "absolute" and size and outside.any():
        exchanged = np.array([size[1], size[0]] * 2) + _SLACK
        if (real >= -_SLACK).all() and (real <= exchanged).all():
            raise UmieError(
                f"box {shown(boxes[outside][0].tolist())} is outside of the image, {size[0]:g} x {size[1]:g}, but all "
                "boxes fit if its height comes first: exchange their names in `keys` or `columns`"
            )
    inverted = finite & (boxes[:, 2:] < boxes[:, :2]).any(1)
    if inverted.any():
        ends = (real[:, :2] + real[:, 2:]) / (scale[:2] if declared == "absolute" else 1)
        if (real >= 0).all() and (ends <= 1 + slack[:2]).all():
            raise UmieError(
                f"box {shown(boxes[inverted][0].tolist())} ends before it begins, but all boxes fit as x, y, width, "
                f"height: set boxes={SIZED[declared]!r}"
            )
    reasons = {"not_finite": ~finite, "outside": outside, "no_area": finite & inside & ~has_area}
    return relative, keep, Counter({name: int(which.sum()) for name, which in reasons.items() if which.any()})
