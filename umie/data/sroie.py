"""SROIE: receipts as lines of text with boxes, and four fields."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from umie.data import registry
from umie.data.reading import (
    OnError,
    OptionalPath,
    are_numbers,
    field,
    image_file,
    numbered_lines,
    parsed_lines,
    pixel_size,
    refuse_regions,
)
from umie.errors import UmieError, at, check_characters, shown
from umie.files import inside, parse_json, read_json
from umie.images import displayed_size
from umie.records import Entity, Record, Region, Span
from umie.records.voc import pixel_region

LICENSE = "research use only; the receipts belong to their owners"
FIELDS = ("company", "date", "address", "total")
_CORNERS = re.compile(r"\s*(-?\d+)\s*," * 8)  # x1,y1,...,x4,y4, and then the text, which may contain commas


@registry.register("sroie")
def read(
    path: str | Path, *, images: OptionalPath = None, regions: OptionalPath = None, on_error: OnError | None = None
) -> Iterator[Record]:
    """Yield one MNER record per receipt; the text is its lines, and each line is a region.

    Source: ICDAR 2019, Scanned Receipts OCR and Information Extraction. There are two kinds of files:

    - a list with the id of a receipt per line. Lines are in ``box/<id>.csv`` or ``.txt`` next to it, fields in
      ``key/<id>.json``, and the sizes of images, which the boxes need, are those of ``<id>.jpg`` in ``images``.
    - a joined .jsonl file: ``id``, ``width_height``, ``lines`` with ``text`` and ``box_xyxy`` (in pixels), and
      ``entities``: the ``text`` of each field and the numbers of its ``lines``.

    The value of a field was typed by annotators: it is found by its letters and digits, without spaces, case and
    punctuation, at the first place where it begins and ends with a word (in joined files, first among its lines). The
    entity has the regions of the lines that it covers. Values that occur nowhere have no entity.

    Raises:
        UmieError: the file cannot be read, ``regions`` is given, or a list is read without ``images``; without
            ``on_error``, a file of a receipt cannot be read, or a box is outside the image.
    """
    path = Path(path)
    refuse_regions(path, regions, "sroie")
    common = {
        "image_folder": None if images is None else str(images),
        "tasks": ("mner",),
        "source": f"SROIE: {path.name}",
        "license": LICENSE,
        "labels": {"mner": FIELDS},
    }
    if path.suffix == ".jsonl":
        yield from parsed_lines(path, partial(_joined, common), on_error)
        return
    if images is None:
        raise UmieError(f"{path}: the boxes of a list of receipts need the sizes of the images: set images")
    yield from parsed_lines(path, partial(_listed, path.parent, Path(images), common), on_error)


def _joined(common: Mapping[str, Any], number: int, line: str) -> Record:
    data = parse_json(line)
    size = pixel_size(data, "width_height", "the line")
    lines = []
    for index, item in enumerate(field(data, "lines", list, "the line")):
        with at(f"line {index} (counted from 0)"):
            box = field(item, "box_xyxy", list, "it")
            if not are_numbers(box, 4):
                raise UmieError(f"box_xyxy is {shown(box)}: expected [x1, y1, x2, y2] in pixels")
            lines.append((field(item, "text", str, "it"), pixel_region(box, size)))
    values: dict[str, str] = {}
    first: dict[str, int] = {}
    for name, item in field(data, "entities", dict, "the line").items():
        if isinstance(item, dict) and item.get("text"):
            values[name] = field(item, "text", str, f"field {shown(name)}")
            numbers = item.get("lines")
            first[name] = numbers[0] if isinstance(numbers, list) and numbers and type(numbers[0]) is int else 0
    name, image = image_file(field(data, "id", str, "the line"), "the id of the receipt")
    return _record(name, image, lines, values, first, common)


def _listed(folder: Path, images: Path, common: Mapping[str, Any], number: int, line: str) -> Record:
    name, image = image_file(line.strip(), "the id of the receipt")
    size = displayed_size(inside(images, image))
    if size is None:
        raise UmieError(f"{images / image}: no such image; it is needed for the size of the boxes")
    boxes = inside(folder, f"box/{name}.csv")
    boxes = boxes if boxes.exists() else inside(folder, f"box/{name}.txt")
    lines = []
    for line_number, written in numbered_lines(boxes):
        with at(f"{boxes}:{line_number}"):
            if isinstance(written, UmieError):
                raise written
            if not written.strip():
                continue
            corners = _CORNERS.match(written)
            if corners is None or not written[corners.end() :].strip():
                raise UmieError(f"{shown(written)} is not a line of a receipt: expected x1,y1,x2,y2,x3,y3,x4,y4,text")
            edges = list(map(float, corners.groups()))
            box = (min(edges[::2]), min(edges[1::2]), max(edges[::2]), max(edges[1::2]))
            lines.append((written[corners.end() :].strip(), pixel_region(box, size)))
    key = inside(folder, f"key/{name}.json")
    values = read_json(key, "an object with the fields of the receipt")
    if not isinstance(values, dict) or not all(isinstance(value, str) for value in values.values()):
        raise UmieError(f"{key}: is {shown(values)}: expected an object with a string for each field")
    return _record(name, image, lines, values, {}, common)


def _record(
    name: str,
    image: str,
    lines: Sequence[tuple[str, Region]],
    values: Mapping[str, str],
    first: Mapping[str, int],
    common: Mapping[str, Any],
) -> Record:
    """Return the record of a receipt; ``first`` is the line of each field, if it is known."""
    starts = [0]
    for text, _ in lines:
        check_characters(text, "a line")
        starts.append(starts[-1] + len(text) + 1)
    full = "\n".join(text for text, _ in lines)
    places = [place for place, character in enumerate(full) if character.isalnum()]  # of letters and digits
    entities = []
    for kind in FIELDS:
        line = first.get(kind, 0)
        if not 0 <= line < len(lines):
            raise UmieError(f"the field {kind!r} is in line {line}, but there are {len(lines)} lines (counted from 0)")
        value = values.get(kind, "")
        found = _find(full, places[bisect_left(places, starts[line]) :], value) or _find(full, places, value)
        if found is not None:
            covered = [
                index for index in range(len(lines)) if starts[index] < found[1] and starts[index + 1] > found[0]
            ]
            entities.append(Entity(kind, found, regions=tuple(covered)))
    return Record(
        text=full,
        image=None if common["image_folder"] is None else image,
        regions=tuple(region for _, region in lines),
        entities=tuple(entities),
        id=name,
        **common,
    )


def _find(text: str, places: Sequence[int], value: str) -> Span | None:
    """Return the first span at ``places`` with the letters and digits of ``value``, not inside a longer word."""
    letters = "".join(text[place] for place in places).lower()
    wanted = "".join(character for character in value if character.isalnum()).lower()
    if len(letters) != len(places):  # a letter whose lowercase has several characters
        return None
    at_letter = letters.find(wanted) if wanted else -1
    while at_letter >= 0:
        first, last = places[at_letter], places[at_letter + len(wanted) - 1]
        if not (first > 0 and text[first - 1].isalnum()) and not text[last + 1 : last + 2].isalnum():
            return first, last + 1
        at_letter = letters.find(wanted, at_letter + 1)
    return None
