"""Boxes in pixels, and the Pascal VOC files in which GMNER stores its regions."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from xml.etree.ElementTree import Element, ParseError

from defusedxml import ElementTree

from umie.errors import UmieError, at, shown
from umie.records.model import Region

_SLACK = 2  # pixels by which an edge may be outside the image because of rounding


class BoxError(UmieError):
    """A box (x1, y1, x2, y2 in pixels) that ``leaves`` the image, or else has no area."""

    def __init__(self, message: str, box: Sequence[float], *, leaves: bool) -> None:
        super().__init__(message)
        self.box = tuple(box)
        self.leaves = leaves


def read_voc(path: Path, on_bad_box: Callable[[BoxError], None] | None = None) -> tuple[Region, ...] | None:
    """Return the regions of a Pascal VOC file, or None if the file does not exist.

    Source: Pascal VOC annotation as LabelImg writes it: ``<size>`` with ``<width>`` and ``<height>``, and an
    ``<object>`` for each box with ``<name>`` (the region's label; several are joined by spaces) and ``<bndbox>``. As in
    Flickr30k Entities, an object with ``<nobox>1`` or ``<scene>1`` need not have a box, and is then skipped.

    Boxes that are outside the image or have no area are passed to ``on_bad_box`` and skipped.

    Raises:
        UmieError: the XML is not well-formed, a field is missing or not a number, or, without ``on_bad_box``, a box is
            outside the image or has no area.
    """
    with at(str(path)):
        try:
            root = ElementTree.fromstring(path.read_bytes())
        except FileNotFoundError:
            return None
        except OSError as error:
            raise UmieError(f"cannot read: {error.strerror}") from error
        except (ParseError, ValueError, LookupError) as error:  # defusedxml's refusals are ValueErrors
            raise UmieError(f"not valid XML: {error}") from error
        size = (_number(root, "size/width"), _number(root, "size/height"))
    regions = []
    for number, item in enumerate(root.findall("object"), start=1):
        if item.find("bndbox") is None and "1" in (item.findtext("nobox"), item.findtext("scene")):
            continue
        with at(f"{path}: object {number}"):
            box = [_number(item, f"bndbox/{edge}") for edge in ("xmin", "ymin", "xmax", "ymax")]
            label = " ".join(filter(None, ((name.text or "").strip() for name in item.findall("name"))))
            try:
                regions.append(pixel_region(box, size, label or None))
            except BoxError as error:
                if on_bad_box is None:
                    raise
                on_bad_box(error)
    return tuple(regions)


def pixel_region(box: Sequence[float], size: tuple[float, float], label: str | None = None) -> Region:
    """Return the region of a box (x1, y1, x2, y2) in pixels of an image of ``size`` (width, height).

    An edge up to two pixels outside the image is moved to its border.

    Raises:
        UmieError: width or height is not a positive number.
        BoxError: the box has no area or is outside the image.
    """
    width, height = size
    if not (0 < width < math.inf and 0 < height < math.inf):
        raise UmieError(f"the image size is {width} x {height}: expected two positive numbers")
    edges = []
    for edge, limit in zip(box, (width, height, width, height), strict=True):
        if not -_SLACK <= edge <= limit + _SLACK:
            message = f"box {shown(list(box))} is outside the image of {width:g} x {height:g} pixels"
            raise BoxError(message, box, leaves=True)
        edges.append(min(max(edge, 0), limit) / limit)
    x1, y1, x2, y2 = edges
    if not (x1 < x2 and y1 < y2):
        raise BoxError(f"box {shown(list(box))} has no area: expected x1 < x2 and y1 < y2", box, leaves=False)
    return Region((x1, y1, x2, y2), label)


def _number(item: Element, path: str) -> float:
    text = item.findtext(path)
    try:
        return float(text or "")
    except ValueError as error:
        found = "missing" if text is None else shown(text)
        raise UmieError(f"<{path}> is {found}: expected a number") from error
