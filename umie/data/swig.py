"""SWiG: images of imSitu with situations whose roles are grounded by boxes; read as events through a mapping to ACE."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from umie.data import registry
from umie.data.ace_events import event_type
from umie.data.reading import (
    OnError,
    OptionalPath,
    are_numbers,
    check_folder,
    field,
    file_name,
    numbered_lines,
    parsed_entries,
    refuse_regions,
)
from umie.errors import UmieError, at, check_characters, shown
from umie.files import inside, read_json
from umie.records import Argument, Event, Record, Region
from umie.records.voc import pixel_region

LICENSE = "research use only; annotations MIT (Allen Institute for AI), images of imSitu collected from the web"
_MAPPING = "ace_sr_mapping.txt"
_NOT_GROUNDED = [-1, -1, -1, -1]


class _Situation(NamedTuple):
    """The ACE event type of a verb, and the ACE role of each of its roles."""

    event_type: str
    roles: dict[str, str]


@registry.register("swig")
def read(
    path: str | Path,
    *,
    images: OptionalPath = None,
    regions: OptionalPath = None,
    on_error: OnError | None = None,
    mapping: str | Path | None = None,
) -> Iterator[Record]:
    """Yield one MED and MEAE record per image, with an empty text.

    Source: allenai/swig, ``SWiG_jsons/{train,dev,test}.json``: an object with one entry per image: ``verb``, ``width``
    and ``height``, ``bb`` (the box of each role in pixels, or four times -1 if the role is not grounded), and
    ``frames`` (for each annotator, three in the published files, the filler of each role: a WordNet id, or '' for
    none). The mapping to ACE is by the authors of M2E2: lines of ``verb<TAB>role<TAB>Type||Sub|Type<TAB>ACE role``.

    Every grounded role is a region, in the order of ``bb``. Annotators share the boxes and differ only in the nouns: a
    region's label is the most frequent noun, the first one in a tie, and None if there is none. A mapped verb yields
    one event without a trigger, with its mapped roles as arguments; a verb without a mapping yields a record without
    events, and a role without a mapping a region that is not an argument. Without ``images``, records have only the
    names of the images. ``mapping`` is the file of the mapping; by default, ace_sr_mapping.txt in the directory of
    ``path``.

    Raises:
        UmieError: a file cannot be read, a line of the mapping is malformed, or ``regions`` is given; without
            ``on_error``, a field is missing or has the wrong type, or a box is outside the image.
    """
    path = Path(path)
    if not isinstance(mapping, str | Path | None):
        raise UmieError(f"mapping is {shown(mapping)}: expected the path of a file such as {_MAPPING}")
    refuse_regions(path, regions, "swig")
    if images is not None:
        check_folder(images, "images")
    situations = _mapping(inside(path.parent, _MAPPING) if mapping is None else Path(mapping))
    common = {
        "image_folder": None if images is None else str(images),
        "tasks": ("med", "meae"),
        "source": f"SWiG: {path.name}",
        "license": LICENSE,
        "labels": {
            "med": tuple(dict.fromkeys(item.event_type for item in situations.values())),
            "meae": tuple(dict.fromkeys(role for item in situations.values() for role in item.roles.values())),
        },
    }
    data = read_json(path, "an object with one entry per image", allow_nan=True)
    if not isinstance(data, dict):
        raise UmieError(f"{path}: is {shown(data)}: expected an object with one entry per image")
    yield from parsed_entries(path, data, lambda name, image: _record(name, image, situations, common), on_error)


def _record(name: str, data: object, situations: Mapping[str, _Situation], common: Mapping[str, Any]) -> Record:
    check_characters(name, "the name of the image")
    file_name(name, "the name of the image")
    situation = situations.get(field(data, "verb", str, "the image"))
    size = _length(data, "width"), _length(data, "height")
    boxes = field(data, "bb", dict, "the image")
    nouns = _nouns(field(data, "frames", list, "the image"))
    regions: list[Region] = []
    arguments: list[Argument] = []
    for role, box in boxes.items():
        with at(f"role {shown(role)}"):
            if not are_numbers(box, 4):
                raise UmieError(f"box is {shown(box)}: expected [x1, y1, x2, y2], or four times -1")
            if box == _NOT_GROUNDED:
                continue
            if situation is not None and role in situation.roles:
                arguments.append(Argument(situation.roles[role], regions=(len(regions),)))
            regions.append(pixel_region(box, size, nouns.get(role)))
    events = () if situation is None else (Event(situation.event_type, None, tuple(arguments)),)
    return Record("", image=name, regions=tuple(regions), events=events, id=name, **common)


def _nouns(frames: list[Any]) -> dict[str, str]:
    """Return the most frequent noun of each role; in a tie, the noun of the earliest annotator."""
    seen: dict[str, Counter[str]] = {}
    for number, frame in enumerate(frames):
        if not isinstance(frame, dict) or not all(isinstance(noun, str) for noun in frame.values()):
            raise UmieError(f"frame {number} (counted from 0) is {shown(frame)}: expected an object with one noun each")
        for role, noun in frame.items():
            if noun:
                check_characters(noun, "a noun")
                seen.setdefault(role, Counter())[noun] += 1
    # a Counter keeps the order of insertion
    return {role: max(nouns, key=nouns.__getitem__) for role, nouns in seen.items()}


def _length(data: object, key: str) -> float:
    value = data.get(key) if isinstance(data, dict) else None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise UmieError(f"field {key!r} of the image is {shown(value)}: expected a number of pixels")
    return value


def _mapping(path: Path) -> dict[str, _Situation]:
    if not path.exists():
        raise UmieError(f"{path}: no such file: put {_MAPPING} of M2E2 there, or set the option `mapping` to its path")
    situations: dict[str, _Situation] = {}
    for number, line in numbered_lines(path):
        with at(f"{path}:{number}"):
            if isinstance(line, UmieError):
                raise line
            if not line.strip():
                continue
            parts = [part.strip() for part in line.split("\t")]
            if len(parts) != 4 or not all(parts):
                raise UmieError(f"{shown(line)} is not a mapping: expected verb<TAB>role<TAB>type<TAB>ACE role")
            verb, role, name, ace_role = parts
            situation = situations.setdefault(verb, _Situation(event_type(name), {}))
            if situation.event_type != event_type(name) or situation.roles.get(role, ace_role) != ace_role:
                problem = "contradicts an earlier line: use one type per verb and one ACE role per role"
                raise UmieError(f"{shown(line)} {problem}")
            situation.roles[role] = ace_role
    return situations
