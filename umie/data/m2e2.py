"""M2E2: news sentences with events, images with events, and pairs of both with the same event.

The arguments in an image are boxes of single participants or of all participants together. The files do not document
the flag of a box. The paper (Li et al. 2020, section 2) has two kinds: a union box, the smallest box around all
participants of a role, and instance boxes, one per participant. 1,318 boxes have the flag "1", up to dozens of them per
role; 111 boxes have "0", with few exceptions one per role, mostly for crowds, and close to the bounding box of the "1"
boxes of the role if there are any. So "1" is an instance box and "0" a union box.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from umie.data import registry
from umie.data.ace_events import M2E2_SCHEMA, event_type
from umie.data.reading import (
    OnError,
    OptionalPath,
    Tokens,
    are_numbers,
    bare,
    check_folder,
    field,
    file_name,
    image_file,
    parsed_entries,
    parsed_lines,
    refuse_regions,
    report,
)
from umie.errors import UmieError, at, check_characters, shown
from umie.files import inside, read_json
from umie.images import displayed_size
from umie.records import Argument, Event, Record, Region
from umie.records.voc import pixel_region

LICENSE = "research use only; no license file; photographs of VOA may belong to AP or Reuters"
_PAIRS = "crossmedia_coref.txt"
_IMAGES = "image_multimedia_event.json"
_FLAGS = {"1": "instance", "0": "union"}  # the labels of the regions


class _Pair(NamedTuple):
    place: str
    sentence_id: str
    image: str
    event_type: str


@registry.register("m2e2")
def read(
    path: str | Path, *, images: OptionalPath = None, regions: OptionalPath = None, on_error: OnError | None = None
) -> Iterator[Record]:
    """Yield the MED and MEAE records of one file of M2E2.

    Source: the annotation files of limanling/m2e2. There are two kinds:

    - a list of sentences (text_multimedia_event.json or another list with ``sentence_id``, ``words`` and
      ``golden-event-mentions`` with token offsets). In the same directory, ``crossmedia_coref.txt`` pairs sentences
      with images, and ``image_multimedia_event.json`` contains the arguments in the images. Each pair yields one
      record, and each sentence without a pair yields one without an image. Events of the type of the pair get the
      arguments in the image, unless the image is annotated for another type (2 of the 309 pairs).
    - an object of images (image_only_event.json, image_multimedia_event.json): each yields one record with an empty
      text and one event without a trigger.

    Boxes are ``[flag, x1, y1, x2, y2]`` in pixels. They are converted with the size of the image: if ``images`` does
    not contain the image, a record has no regions, and a record without text is annotated for MED only (``tasks``).
    Event types are named as in the paper: 'Justice:Arrest-Jail' becomes 'arrest jail', 'Transaction:Transfer-Money'
    becomes 'transfer'.

    Raises:
        UmieError: the file cannot be read or is of neither kind, ``regions`` is given, or ``images`` is missing for a
            file of images; without ``on_error``, a field is missing or has the wrong type, an offset is outside the
            text, a pair has no sentence, or a box is outside its image.
    """
    path = Path(path)
    refuse_regions(path, regions, "m2e2")
    if images is not None:
        check_folder(images, "images")
    data = read_json(path, "a list of sentences or an object of images", allow_nan=True)
    common = {"source": f"M2E2: {path.name}", "license": LICENSE, "labels": M2E2_SCHEMA}
    if isinstance(data, list):
        yield from _sentences(path, data, images, on_error, common)
    elif isinstance(data, dict):
        if images is None:
            raise UmieError(f"{path}: annotates images without texts: specify images, the directory of the images")
        folder = Path(images)
        yield from parsed_entries(path, data, lambda stem, image: _image_record(stem, image, folder, common), on_error)
    else:
        raise UmieError(f"{path}: is {shown(data)}: expected a list of sentences or an object of images")


def _sentences(
    path: Path, sentences: list[Any], images: OptionalPath, on_error: OnError | None, common: Mapping[str, Any]
) -> Iterator[Record]:
    named = []
    for number, sentence in enumerate(sentences):
        try:
            named.append((field(sentence, "sentence_id", str, "the sentence"), sentence))
        except UmieError as error:
            report(error, on_error, f"{path}: sentence {number} (counted from 0)")
    pairs = _pairs(inside(path.parent, _PAIRS), {identifier for identifier, _ in named}, on_error)
    annotation = _annotation(inside(path.parent, _IMAGES)) if images is not None else None
    for identifier, sentence in named:
        try:
            text_only = _sentence(identifier, sentence, common)
        except UmieError as error:
            report(error, on_error, f"{path}: {bare(identifier)}")
            continue
        if identifier not in pairs:
            yield text_only
        for pair in pairs.get(identifier, ()):
            try:
                record = _paired(text_only, pair, images, annotation)
            except UmieError as error:  # its message begins with the file, which is one of three
                report(error, on_error)
                continue
            yield record


def _sentence(identifier: str, sentence: object, common: Mapping[str, Any]) -> Record:
    tokens = Tokens(field(sentence, "words", list, "the sentence"))
    mentions = field(sentence, "golden-event-mentions", list, "the sentence")
    events = tuple(_event(mention, tokens) for mention in mentions)
    return Record(tokens.text, events=events, id=identifier, tasks=("med", "meae"), **common)


def _paired(record: Record, pair: _Pair, images: OptionalPath, annotation: Mapping[str, Any] | None) -> Record:
    stem = Path(pair.image).stem
    with at(pair.place):
        if pair.event_type not in {event.type for event in record.events}:
            raise UmieError(f"the sentence {bare(pair.sentence_id)} has no event of type {shown(pair.event_type)}")
        if annotation is not None and stem not in annotation:
            raise UmieError(f"the image {bare(stem)} is not in {_IMAGES}: add it, or remove the pair")
    identifier = f"{pair.sentence_id}:{stem}"
    if images is None:
        return replace(record, id=identifier)
    regions: tuple[Region, ...] = ()
    arguments: tuple[Argument, ...] = ()
    size = None if annotation is None else displayed_size(inside(images, pair.image))
    if annotation is not None and size is not None:
        with at(f"{Path(pair.place).parent / _IMAGES}: {bare(stem)}"):
            regions, arguments = _image_arguments(annotation[stem], size, pair.event_type)
    events = tuple(
        replace(event, arguments=(*event.arguments, *arguments)) if event.type == pair.event_type else event
        for event in record.events
    )
    return replace(record, id=identifier, image=pair.image, image_folder=str(images), regions=regions, events=events)


def _event(mention: object, tokens: Tokens) -> Event:
    name = event_type(field(mention, "event_type", str, "the event"))
    trigger = field(mention, "trigger", dict, f"the event {shown(name)}")
    arguments = []
    for item in field(mention, "arguments", list, f"the event {shown(name)}"):
        role = field(item, "role", str, "the argument")
        arguments.append(Argument(role, tokens.mention(item, f"the argument {shown(role)}")))
    return Event(name, tokens.mention(trigger, f"the trigger of {shown(name)}"), tuple(arguments))


def _pairs(path: Path, known: AbstractSet[str], on_error: OnError | None) -> dict[str, list[_Pair]]:
    """Return the pairs by sentence; empty if the file is missing or contains none of the known sentences."""

    def pair(number: int, line: str) -> _Pair:
        parts = line.split("\t")
        if len(parts) != 3:
            raise UmieError(f"{shown(line)} is not a pair: expected sentence<TAB>image<TAB>event type")
        image = file_name(parts[1].strip(), "the image")
        return _Pair(f"{path}:{number}", parts[0].strip(), image, event_type(parts[2]))

    pairs: dict[str, list[_Pair]] = {}
    for found in parsed_lines(path, pair, on_error) if path.exists() else ():
        pairs.setdefault(found.sentence_id, []).append(found)
    if known.isdisjoint(pairs):
        return {}
    for identifier in [identifier for identifier in pairs if identifier not in known]:
        for found in pairs.pop(identifier):
            problem = f"there is no sentence {bare(identifier)}: add it, or remove the pair"
            report(UmieError(problem), on_error, found.place)
    return pairs


def _annotation(path: Path) -> dict[str, Any] | None:
    data = read_json(path, allow_nan=True) if path.exists() else None
    if data is not None and not isinstance(data, dict):
        raise UmieError(f"{path}: is {shown(data)}: expected an object with one entry per image")
    return data


def _image_record(stem: str, data: object, images: Path, common: Mapping[str, Any]) -> Record:
    """Return the record of an image without text: one event without a trigger, whose arguments are regions."""
    check_characters(stem, "the name")
    _, name = image_file(stem, "the image")
    kind = event_type(field(data, "event_type", str, "the image"))
    size = displayed_size(inside(images, name))
    regions, arguments = ((), ()) if size is None else _image_arguments(data, size, kind)
    return Record(
        "",
        image=name,
        image_folder=str(images),
        regions=regions,
        events=(Event(kind, None, arguments),),
        id=stem,
        tasks=("med",) if size is None else ("med", "meae"),
        **common,
    )


def _image_arguments(
    data: object, size: tuple[int, int], wanted_type: str
) -> tuple[tuple[Region, ...], tuple[Argument, ...]]:
    """Return the regions of an image, none if it is annotated for another type, and the arguments in them."""
    regions: list[Region] = []
    arguments: list[Argument] = []
    is_wanted = event_type(field(data, "event_type", str, "the image")) == wanted_type
    roles = field(data, "role", dict, "the image") if is_wanted else {}
    for role in roles:
        check_characters(role, "a role")
        for box in field(roles, role, list, "the image's roles"):
            with at(f"role {shown(role)}"):
                if not isinstance(box, list) or not are_numbers(box[1:], 4):
                    raise UmieError(f"box is {shown(box)}: expected [flag, x1, y1, x2, y2]")
                if not isinstance(box[0], str) or box[0] not in _FLAGS:
                    raise UmieError(f"flag is {shown(box[0])}: expected '1' (an instance) or '0' (the union)")
                arguments.append(Argument(role, regions=(len(regions),)))
                regions.append(pixel_region(box[1:], size, _FLAGS[box[0]]))
    return tuple(regions), tuple(arguments)
