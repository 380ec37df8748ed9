"""SWiG: images of imSitu with situations, whose boxes ground the roles; read as events by way of a mapping to ACE."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from dataclasses import field as with_default
from pathlib import Path
from typing import Any

from umie.data import registry
from umie.data.ace_events import event_type
from umie.data.reading import OnError, numbered_lines, report
from umie.data.text import check_folder, field, file_name, load_json, refuse_regions
from umie.errors import UmieError, at, check_characters, shown
from umie.records import Argument, Event, Record, Region
from umie.records.voc import pixel_region

LICENSE = "research use only; annotations MIT (Allen Institute for AI), images of imSitu as found on the web"
_MAPPING = "ace_sr_mapping.txt"
_NOT_GROUNDED = [-1, -1, -1, -1]


@dataclass
class _Situation:
    """What a verb is in ACE: the type of its event, and the role of each of its roles."""

    event_type: str
    roles: dict[str, str] = with_default(default_factory=dict)


@registry.register("swig")
def read(
    path: str | Path,
    *,
    images: str | Path | None = None,
    regions: str | Path | None = None,
    on_error: OnError | None = None,
    mapping: str | Path | None = None,
) -> Iterator[Record]:
    """Yield one MED and MEAE record for each image, with an empty text.

    Source: allenai/swig, ``SWiG_jsons/{train,dev,test}.json``: an object with an entry for each image: ``verb``,
    ``width`` and ``height``, ``bb`` (the box of each role in pixels, or four times -1 where nothing is grounded),
    and ``frames`` (what each of the annotators, three in the published files, saw in each role: a WordNet id, or ''
    for nothing). The mapping to ACE is the one of M2E2's authors: lines
    ``verb<TAB>role<TAB>Type||Sub|Type<TAB>ACE role``.

    Every grounded role is a region, in the order of ``bb``. Annotators share the boxes and differ in the nouns only:
    a region's label is the noun that most of them gave, the first of those at a tie, and None if nobody gave one. A
    mapped verb makes one event without trigger, and its mapped roles the arguments; a verb without mapping gives a
    record without events, a role without mapping a region that is no argument.

    Args:
        path: the file.
        images: the folder of the images; without it the records only name them.
        regions: not accepted: the boxes are in the file.
        on_error: called with the error of each image that cannot be read, which is passed over.
        mapping: the file of the mapping; by default ace_sr_mapping.txt beside ``path``.

    Raises:
        UmieError: a file that cannot be read, a line of the mapping that is none, or ``regions`` given; without
            ``on_error``, a missing or ill-typed field, a box outside the image.
    """
    path = Path(path)
    refuse_regions(path, regions, "swig")
    if images is not None:
        check_folder(images, "images")
    situations = _mapping(path.with_name(_MAPPING) if mapping is None else Path(mapping))
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
    data = load_json(path)
    if not isinstance(data, dict):
        raise UmieError(f"{path}: is {shown(data)}: expected an object with an entry for each image")
    for name, image in data.items():
        try:
            record = _record(name, image, situations, common)
        except UmieError as error:
            report(error, on_error, f"{path}: {shown(name)[1:-1]}")
            continue
        yield record


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
            if not isinstance(box, list) or [type(edge) in (int, float) for edge in box] != [True] * 4:
                raise UmieError(f"box is {shown(box)}: expected [x1, y1, x2, y2], or four times -1")
            if box == _NOT_GROUNDED:
                continue
            if situation is not None and role in situation.roles:
                arguments.append(Argument(situation.roles[role], region=len(regions)))
            regions.append(pixel_region(box, size, nouns.get(role)))
    events = () if situation is None else (Event(situation.event_type, None, tuple(arguments)),)
    return Record("", image=name, regions=tuple(regions), events=events, id=name, **common)


def _nouns(frames: list[Any]) -> dict[str, str]:
    """Return what most annotators saw in each role; at a tie what the first of them saw."""
    seen: dict[str, Counter[str]] = {}
    for number, frame in enumerate(frames):
        if not isinstance(frame, dict) or not all(isinstance(noun, str) for noun in frame.values()):
            raise UmieError(f"frame {number} (from 0) is {shown(frame)}: expected an object with a noun for each role")
        for role, noun in frame.items():
            if noun:
                check_characters(noun, "a noun")
                seen.setdefault(role, Counter())[noun] += 1
    # a Counter keeps the order of the annotators
    return {role: max(nouns, key=nouns.__getitem__) for role, nouns in seen.items()}


def _length(data: object, key: str) -> float:
    value = data.get(key) if isinstance(data, dict) else None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise UmieError(f"field {key!r} of the image is {shown(value)}: expected a number of pixels")
    return value


def _mapping(path: Path) -> dict[str, _Situation]:
    if not path.exists():
        raise UmieError(f"{path}: no such file: put {_MAPPING} of M2E2 there, or name it: --mapping, or mapping=")
    situations: dict[str, _Situation] = {}
    for number, line in numbered_lines(path):
        with at(f"{path}:{number}"):
            if isinstance(line, UmieError):
                raise line
            if not line.strip():
                continue
            parts = [part.strip() for part in line.split("\t")]
            if len(parts) != 4 or not all(parts):
                raise UmieError(f"{shown(line)} is no mapping: expected verb<TAB>role<TAB>Type||Sub|Type<TAB>ACE role")
            verb, role, name, ace_role = parts
            situation = situations.setdefault(verb, _Situation(event_type(name)))
            if situation.event_type != event_type(name) or situation.roles.get(role, ace_role) != ace_role:
                raise UmieError(f"{shown(line)} contradicts a line above: give a verb one type, a role one ACE role")
            situation.roles[role] = ace_role
    return situations
