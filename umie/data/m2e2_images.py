"""The images of M2E2: one event each, with arguments as boxes of single participants or of all participants together.

The files do not document the flag of a box. The paper (Li et al. 2020, section 2) has two kinds of boxes: a union box,
the smallest box around all participants of a role, and instance boxes, one per participant. 1,318 boxes have the flag
"1", up to dozens of them per role; 111 boxes have "0", with few exceptions one per role, mostly for crowds, and close
to the bounding box of the "1" boxes of the role if there are any. So "1" is an instance box and "0" a union box.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from umie.data.ace_events import event_type
from umie.data.text import field, file_name
from umie.errors import UmieError, at, check_characters, shown
from umie.images import displayed_size
from umie.records import Argument, Event, Record, Region
from umie.records.voc import pixel_region

INSTANCE, UNION = "instance", "union"  # the labels of the regions
_FLAGS = {"1": INSTANCE, "0": UNION}


def image_record(stem: str, data: object, images: str | Path, common: Mapping[str, Any]) -> Record:
    """Return the record of an image without text: one event without a trigger, whose arguments are regions.

    Args:
        stem: the file name of the image, without ``.jpg``.
        data: its annotation.
        images: the directory of the images.
        common: source, license and labels.

    Returns:
        The record. If the image does not exist, its boxes cannot be converted: the record has no regions and no
        arguments, and is annotated for MED only.

    Raises:
        UmieError: a field is missing or has the wrong type, a box is outside the image, or the file is not an image.
    """
    check_characters(stem, "the name")
    name = file_name(f"{stem}.jpg", "the image")
    kind = event_type(field(data, "event_type", str, "the image"))
    found = image_arguments(data, Path(images) / name, "", kind)
    regions, arguments = found or ((), ())
    return Record(
        "",
        image=name,
        image_folder=str(images),
        regions=regions,
        events=(Event(kind, None, arguments),),
        id=stem,
        tasks=("med",) if found is None else ("med", "meae"),
        **common,
    )


def image_arguments(
    data: object, image: Path, place: str, wanted_type: str
) -> tuple[tuple[Region, ...], tuple[Argument, ...]] | None:
    """Return the regions of an image and the arguments that refer to them; None if the image does not exist.

    Args:
        data: the annotation of the image.
        image: the file of the image, from which its size is read.
        place: prepended to error messages about the annotation, if not empty.
        wanted_type: the event type; an image annotated for another type has no regions.

    Raises:
        UmieError: a field is missing or has the wrong type, a box is outside the image, or the file is not an image.
    """
    size = displayed_size(image)
    if size is None:
        return None
    regions: list[Region] = []
    arguments: list[Argument] = []
    try:
        for role, region in _boxes(data, wanted_type, size):
            arguments.append(Argument(role, region=len(regions)))
            regions.append(region)
    except UmieError as error:
        raise UmieError(f"{place}: {error}" if place else str(error)) from error
    return tuple(regions), tuple(arguments)


def _boxes(data: object, wanted_type: str, size: tuple[int, int]) -> Iterator[tuple[str, Region]]:
    if event_type(field(data, "event_type", str, "the image")) != wanted_type:
        return
    roles = field(data, "role", dict, "the image")
    for role in roles:
        check_characters(role, "a role")
        for box in field(roles, role, list, "the image's roles"):
            with at(f"role {shown(role)}"):
                if not isinstance(box, list) or [type(edge) in (int, float) for edge in box[1:]] != [True] * 4:
                    raise UmieError(f"box is {shown(box)}: expected [flag, x1, y1, x2, y2]")
                if not isinstance(box[0], str) or box[0] not in _FLAGS:
                    raise UmieError(f"flag is {shown(box[0])}: expected '1' (an instance) or '0' (the union)")
                yield role, pixel_region(box[1:], size, _FLAGS[box[0]])
