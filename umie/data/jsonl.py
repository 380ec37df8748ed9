"""The format of this library: one JSON object per line, as written by ``umie.records.write_jsonl``."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, get_args

from umie.data import registry
from umie.data.reading import OnError, OptionalPath, are_numbers, parsed_lines, refuse_regions
from umie.errors import UmieError, at, check_choice, shown
from umie.files import MAX_LINE, inside
from umie.images import displayed_size
from umie.records import Record, read_numbered_jsonl, record_from_json
from umie.records.jsonl import parse_line
from umie.records.notes import CLIPPED, take_note
from umie.records.offsets import Unit, character_span
from umie.records.voc import pixel_region

Boxes = Literal["relative", "absolute", "xywh", "relative_xywh"]
_ROUNDING = 0.001  # by which x + width may be more than 1


@registry.register("jsonl")
def read(
    path: str | Path,
    *,
    images: OptionalPath = None,
    regions: OptionalPath = None,
    on_error: OnError | None = None,
    boxes: Boxes = "relative",
    offsets: Unit = "characters",
) -> Iterator[Record]:
    """Yield the records of a JSONL file; a record without an id gets the number of its line.

    Args:
        path: the file.
        images: the directory of the images, by default that of the file.
        regions: not supported; regions are part of the records.
        on_error: see ``umie.data``.
        boxes: the form of boxes: x1, y1, x2, y2, ``relative`` to the size of the image (0..1) or ``absolute``, in
            pixels of the image as displayed; or x, y, width and height, ``xywh`` in pixels or ``relative_xywh``.
        offsets: what offsets count: ``characters``, ``utf16`` (units, as in JavaScript and Java), or ``bytes`` of
            UTF-8.

    Raises:
        UmieError: the file cannot be read, or an option is wrong; without ``on_error``, a line is not a valid record,
            or a box in pixels has no image.
    """
    refuse_regions(path, regions, "jsonl")
    check_choice("boxes", boxes, get_args(Boxes))
    check_choice("offsets", offsets, get_args(Unit))
    if boxes == "relative" and offsets == "characters":
        for number, record in read_numbered_jsonl(path, images, on_error):
            yield record if record.id else replace(record, id=f"{Path(path).name}:{number}")
        return
    path = Path(path)
    folder = str(path.parent if images is None else images)

    def converted(number: int, line: str) -> Record:
        data = parse_line(line)
        if not isinstance(data, dict):
            raise UmieError(f"record is {shown(data)}: expected a JSON object")
        regions = data.get("regions")
        for region in regions if boxes != "relative" and isinstance(regions, list) else ():
            if isinstance(region, dict):
                image = _image_of(data, region.get("image", 0))
                region["box"] = _relative_box(region.get("box"), boxes, image, folder)
        if isinstance(data.get("text"), str):
            for key in ("entities", "relations", "events"):
                _convert_spans(data.get(key), data["text"], offsets)
        record = record_from_json(json.dumps(data), folder)
        return record if record.id else replace(record, id=f"{path.name}:{number}")

    yield from parsed_lines(path, converted, on_error, 4 * MAX_LINE)


def _image_of(data: Mapping[str, Any], number: Any) -> Any:
    """Return the file name of the image with a number; None if there is none."""
    images = data.get("images") or [data.get("image")]
    is_known = isinstance(images, list) and type(number) is int and 0 <= number < len(images)
    return images[number] if is_known else None


def _relative_box(box: Any, form: Boxes, image: Any, folder: str) -> list[float]:
    """Return a box of any form as x1, y1, x2, y2 relative to the image."""
    if not are_numbers(box, 4):
        raise UmieError(f"box is {shown(box)}: expected four numbers")
    x1, y1, x2, y2 = box
    if form in ("xywh", "relative_xywh"):
        x2, y2 = x1 + x2, y1 + y2
    if form == "relative_xywh":
        edges = [min(edge, 1.0) if edge <= 1 + _ROUNDING else edge for edge in (x1, y1, x2, y2)]
        if edges != [x1, y1, x2, y2]:
            take_note(CLIPPED)
        return edges
    size = displayed_size(inside(folder, image)) if isinstance(image, str) else None
    if size is None:
        raise UmieError(f"a box in pixels needs its image, and {shown(image)} is not in {folder}: set images")
    with at("region"):
        return list(pixel_region((x1, y1, x2, y2), size).box)


def _convert_spans(value: Any, text: str, unit: Unit) -> None:
    """Convert, in place, the spans of a list of annotations to offsets of characters."""
    for item in value if isinstance(value, list) else ():
        for key in ("span", "head", "tail", "trigger") if isinstance(item, dict) else ():
            found = item.get(key)
            if isinstance(found, list) and len(found) == 2 and type(found[0]) is type(found[1]) is int:
                item[key] = list(character_span(text, (found[0], found[1]), unit))
            elif isinstance(found, dict):
                _convert_spans([found], text, unit)
        if isinstance(item, dict):
            _convert_spans(item.get("arguments"), text, unit)
