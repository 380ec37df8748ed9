"""Boxes in pixels, and the Pascal VOC files in which GMNER stores its regions."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple
from xml.etree.ElementTree import Element, ParseError

from defusedxml import ElementTree

from umie.errors import UmieError, at, shown
from umie.files import read_data
from umie.images import SIDEWAYS, stored_size
from umie.records.notes import BOXES, CLIPPED, take_note
from umie.records.places import Box, Region

_SLACK = 2  # pixels by which an edge may be outside the image because of rounding


class BoxError(UmieError):
    """A box (x1, y1, x2, y2 in pixels) that ``leaves`` the image, or else has no area."""

    def __init__(self, message: str, box: Sequence[float], *, leaves: bool) -> None:
        super().__init__(message)
        self.box = tuple(box)
        self.leaves = leaves


class Frame(NamedTuple):
    """The size of the image that boxes in pixels refer to, and the EXIF orientation by which they must be turned."""

    width: float
    height: float
    orientation: int = 1

    def region(self, box: Sequence[float], label: str | None = None) -> Region:
        """Return the region of a box (x1, y1, x2, y2); see ``pixel_region``."""
        region = pixel_region(box, (self.width, self.height), label)
        return region if self.orientation == 1 else Region(turned(region.box, self.orientation), label)


def read_voc(
    path: Path, on_bad_box: Callable[[BoxError], None] | None = None, *, image: Path | None = None
) -> tuple[Region, ...] | None:
    """Return the regions of a Pascal VOC file, or None if the file does not exist.

    Source: Pascal VOC annotation as LabelImg writes it: ``<size>`` with ``<width>`` and ``<height>``, and an
    ``<object>`` for each box with ``<name>`` (the region's label; several are joined by spaces) and ``<bndbox>``. As in
    Flickr30k Entities, an object with ``<nobox>1`` or ``<scene>1`` need not have a box, and is then skipped.

    Boxes that are outside the image or have no area are passed to ``on_bad_box`` and skipped. The regions are those of
    the ``image`` as displayed; see ``frame_of``.

    Raises:
        UmieError: the XML is not well-formed, a field is missing or not a number, or, without ``on_bad_box``, a box is
            outside the image or has no area.
    """
    with at(str(path)):
        try:
            data = read_data(path)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise UmieError(f"cannot read: {error.strerror}") from error
        try:
            root = ElementTree.fromstring(data)
        except (ParseError, ValueError, LookupError) as error:  # defusedxml's refusals are ValueErrors
            raise UmieError(f"not valid XML: {error}") from error
        objects = root.findall("object")
        has_size = image is None or root.find("size") is not None
        size = (_number(root, "size/width"), _number(root, "size/height")) if has_size else (0.0, 0.0)
        frame = frame_of(size, image) if objects else Frame(*size)
    regions = []
    for number, item in enumerate(objects, start=1):
        if item.find("bndbox") is None and "1" in (item.findtext("nobox"), item.findtext("scene")):
            continue
        with at(f"{path}: object {number}"):
            box = [_number(item, f"bndbox/{edge}") for edge in ("xmin", "ymin", "xmax", "ymax")]
            label = " ".join(filter(None, ((name.text or "").strip() for name in item.findall("name"))))
            try:
                regions.append(frame.region(box, label or None))
            except BoxError as error:
                if on_bad_box is None:
                    raise
                on_bad_box(error)
    return tuple(regions)


def frame_of(declared: tuple[float, float], image: Path | None) -> Frame:
    """Return the frame of boxes in pixels whose file declares the size of the image.

    Annotation tools show an image as stored or, like ``umie``, as displayed: turned by its EXIF orientation. The
    declared size tells which, unless the image is square, or turned by 180 degrees or mirrored; that is noted. A
    declared size of 0, as some tools write, is replaced by the size of the image.

    Args:
        declared: width and height.
        image: the image; None, or a file that is missing or not readable, if the declared size is all there is.

    Raises:
        UmieError: the declared size is not positive, and that of the image is unknown or depends on its orientation.
    """
    try:
        found = None if image is None else stored_size(image)
    except UmieError:  # reported where the image is read
        found = None
    is_declared = all(0 < side < math.inf for side in declared)
    if found is None:
        if not is_declared:
            raise UmieError(f"{_size_error(declared)}, or a readable image in the directory of images")
        return Frame(*declared)
    stored, orientation = found
    if not is_declared:
        if orientation != 1:
            raise UmieError(f"{_size_error(declared)}; that of the image is not used, because EXIF data turn it")
        take_note("files of boxes without the size of the image, read with that of the image")
        return Frame(*stored)
    is_sideways = orientation in SIDEWAYS
    displayed = (stored[1], stored[0]) if is_sideways else stored
    fits_stored, fits_displayed = declared == stored, declared == displayed
    if not (fits_stored or fits_displayed):
        fits_stored, fits_displayed = _has_shape(declared, stored), _has_shape(declared, displayed)
    if not (fits_stored or fits_displayed):
        take_note("files of boxes that declare a size of other proportions than their image")
    elif orientation != 1 and fits_stored and fits_displayed:
        take_note("files of boxes for an image turned by EXIF data, read as boxes of the image as displayed")
    return Frame(*declared, orientation if fits_stored and not fits_displayed else 1)


def _has_shape(size: tuple[float, float], other: tuple[float, float]) -> bool:
    """Return whether two sizes are equal apart from scale and rounding."""
    return abs(size[0] * other[1] - size[1] * other[0]) <= _SLACK * max(*size, *other)


def turned(box: Box, orientation: int) -> Box:
    """Return a relative box of an image as stored in the image as displayed, after its EXIF orientation."""
    turn = _TURNS[orientation]
    (x1, y1), (x2, y2) = turn(*box[:2]), turn(*box[2:])
    (left, top), (right, bottom) = turn(0.0, 0.0), turn(1.0, 1.0)  # by which a box without area stays one
    if left > right:
        x1, x2 = x2, x1
    if top > bottom:
        y1, y2 = y2, y1
    return x1, y1, x2, y2


_TURNS: dict[int, Callable[[float, float], tuple[float, float]]] = {
    1: lambda x, y: (x, y),
    2: lambda x, y: (1 - x, y),
    3: lambda x, y: (1 - x, 1 - y),
    4: lambda x, y: (x, 1 - y),
    5: lambda x, y: (y, x),
    6: lambda x, y: (1 - y, x),
    7: lambda x, y: (1 - y, 1 - x),
    8: lambda x, y: (y, 1 - x),
}


def pixel_region(box: Sequence[float], size: tuple[float, float], label: str | None = None) -> Region:
    """Return the region of a box (x1, y1, x2, y2) in pixels of an image of ``size`` (width, height).

    An edge up to two pixels outside the image is moved to its border.

    Raises:
        UmieError: width or height is not a positive number.
        BoxError: the box has no area or is outside the image.
    """
    width, height = size
    if not (0 < width < math.inf and 0 < height < math.inf):
        raise UmieError(_size_error(size))
    edges = []
    for edge, limit in zip(box, (width, height, width, height), strict=True):
        if not -_SLACK <= edge <= limit + _SLACK:
            message = f"box {shown(list(box))} is outside the image of {width:g} x {height:g} pixels"
            raise BoxError(message, box, leaves=True)
        edges.append(min(max(edge, 0), limit) / limit)
    x1, y1, x2, y2 = edges
    if not (x1 < x2 and y1 < y2):
        raise BoxError(f"box {shown(list(box))} has no area: expected x1 < x2 and y1 < y2", box, leaves=False)
    take_note(BOXES)
    if any(not 0 <= edge <= limit for edge, limit in zip(box, (width, height) * 2, strict=True)):
        take_note(CLIPPED)
    return Region((x1, y1, x2, y2), label)


def _size_error(size: tuple[float, float]) -> str:
    return f"the image size is {size[0]} x {size[1]}: expected two positive numbers"


def _number(item: Element, path: str) -> float:
    text = item.findtext(path)
    try:
        return float(text or "")
    except ValueError as error:
        found = "missing" if text is None else shown(text)
        raise UmieError(f"<{path}> is {found}: expected a number") from error
