"""The JSONL form of records: one record per line. Every error names the value."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from umie.errors import UmieError, at, check_characters, check_keys, shown
from umie.files import MAX_LINE, atomic_write, bounded_lines, parse_json
from umie.records.model import (
    Argument,
    Entity,
    Event,
    Record,
    Relation,
    Span,
    annotated_spans,
    check_num_images,
    check_places,
    check_region_images,
    check_schema,
    check_span,
    place_references,
)
from umie.records.offsets import advice
from umie.records.places import MEDIA, NOWHERE, PLACES, Mask, Medium, Places, Region, Segment, Track

T = TypeVar("T")

MAX_TEXT = 100_000  # characters; bounds the cost of one span, so that reading time is linear in the size of the file
KEYS = (
    "text", "image", "regions", "entities", "relations", "events", "id", "tasks", "source", "license", "labels",
    "audio", "segments", "video", "tracks", "gold", "images",
)  # fmt: skip
_OLD_LICENSE = "licence"  # still read in files written before the key was renamed
# json.dumps would build an encoder for each line
_encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False).encode
_SURROGATE_ESCAPE = re.compile(r"\\u[dD][89a-fA-F]")


def read_jsonl(path: str | Path, images: str | Path | None = None) -> Iterator[Record]:
    """Yield the records of a JSONL file, one per line; blank lines are skipped.

    ``images`` is the directory of the images; by default, the directory of the file.

    Raises:
        UmieError: the file or a line cannot be read; the message names file, line and value.
    """
    for _, record in read_numbered_jsonl(path, images):
        yield record


def read_numbered_jsonl(
    path: str | Path,
    images: str | Path | None = None,
    on_error: Callable[[UmieError], None] | None = None,
) -> Iterator[tuple[int, Record]]:
    """Yield ``(line number, record)`` for each record of a JSONL file; see ``read_jsonl``.

    With ``on_error``, it is called with every error of a malformed line, and reading continues with the next line.
    Without it, the first error is raised.
    """
    folder = str(images if images is not None else Path(path).parent)
    for number, line in bounded_lines(Path(path)):
        try:
            if isinstance(line, UmieError):
                raise line
            if not line.strip():
                continue
            record = record_from_json(line, folder)
        except UmieError as error:
            place = f"{path}:{number}"
            if on_error is None:
                raise UmieError(f"{place}: {error}") from error
            for problem in (isinstance(line, str) and errors_of_line(line)) or [error]:
                on_error(UmieError(f"{place}: {problem}"))
            continue
        yield number, record


def write_jsonl(path: str | Path, records: Iterable[Record]) -> None:
    """Write records as JSONL, atomically.

    Raises:
        UmieError: a record holds its image in memory, or is too long for ``read_jsonl``.
    """
    with atomic_write(path) as file:
        for number, record in enumerate(records, start=1):
            with at(f"{path}: record {number}"):
                file.write(record_to_json(record) + "\n")


def record_from_json(line: str, image_folder: str | None = None) -> Record:
    """Return the record of one JSONL line, whose image is in ``image_folder``.

    Raises:
        UmieError: the line is not a JSON object, has an unknown key, or has an invalid value.
    """

    def call(read: Callable[..., T], *arguments: Any) -> T:
        return read(*arguments)

    return Record(**_values(line, _load_object(line), call, image_folder))


def errors_of_line(line: str) -> list[UmieError]:
    """Return every error of a JSONL line, but of an item of the annotation only the first; [] if the line is valid."""
    errors: list[UmieError] = []

    def tried(read: Callable[..., T], *arguments: Any) -> T | None:
        try:
            return read(*arguments)
        except UmieError as error:
            errors.append(error)
            return None

    data = tried(_load_object, line)
    values = {} if data is None else _values(line, data, tried)
    if values.get("text") is None:
        return errors
    record = Record(values["text"], image="?")
    entities, relations, events = (
        [item for item in values[key] if item is not None] for key in ("entities", "relations", "events")
    )
    for _, span in annotated_spans(entities, relations, events):
        tried(record.surface, span)
    if None not in values["regions"]:
        tried(check_region_images, values["regions"], 1 + len(values["more_images"]))
    numbers = {medium: len(values[kind]) for medium, kind in PLACES.items() if isinstance(values[kind], list)}
    if len(numbers) == len(PLACES):
        for owner, places in place_references(entities, relations, events):
            tried(check_places, owner, places, numbers)
    return errors


def parse_line(line: str) -> object:
    """Return the JSON value of a line; raise UmieError if it is too long, not valid JSON, or repeats a key."""
    _check_length(line)
    return parse_json(line)


def record_to_json(record: Record) -> str:
    """Return the JSONL line of a record; empty values are omitted.

    Raises:
        UmieError: the record holds its image in memory, or is too long for ``read_jsonl``.
    """
    for medium in MEDIA:
        if not all(isinstance(source, str) for source in record.of(medium)):
            raise UmieError(
                f"the record holds its {medium} in memory: save the {medium} and set `{medium}` to its file name"
            )
    _check_text_length(record.text)
    gold = None if record.gold is None else {key: value for key, value in _annotation(record.gold).items() if value}
    data: dict[str, Any] = {
        "id": record.id,
        "text": record.text,
        "image": None if record.more_images else record.image,
        "images": list(record.images) if record.more_images else None,
        "audio": record.audio,
        "video": record.video,
        **_annotation(record),
        "tasks": None if record.tasks is None else list(record.tasks),
        "source": record.source,
        "license": record.license,
        "labels": None if record.labels is None else {task: list(labels) for task, labels in record.labels.items()},
        "gold": gold,
    }
    kept = {key: value for key, value in data.items() if value not in (None, []) or (key == "tasks" and value == [])}
    line = _encode(kept)
    check_characters(line, "record")
    _check_length(line)
    return line


def _annotation(record: Record) -> dict[str, list[dict[str, Any]]]:
    """Return the places and items of a record."""

    def mention(span: Span | None, places: Places = NOWHERE) -> dict[str, Any]:
        covered = {} if span is None else {"span": list(span), "text": record.surface(span)}
        return covered | {PLACES[medium]: list(places.of(medium)) for medium in MEDIA if places.of(medium)}

    def argument(item: Argument) -> dict[str, Any]:
        one_region = item.span is None and len(item.regions) == 1 and not item.places.without("image")
        filler = {"region": item.regions[0]} if one_region else mention(item.span, item.places)
        return {"role": item.role, **filler, **_probable(item)}

    return {
        "regions": [
            {"box": list(region.box), **_labeled(region), **_masked(region), **_placed(region)}
            for region in record.regions
        ],
        "segments": [{"interval": list(segment.interval), **_labeled(segment)} for segment in record.segments],
        "tracks": [
            {
                "times": list(track.times),
                "boxes": [None if box is None else list(box) for box in track.boxes],
                **_labeled(track),
            }
            for track in record.tracks
        ],
        "entities": [
            {"type": item.type, **mention(item.span, item.places), **_probable(item)} for item in record.entities
        ],
        "relations": [
            {
                "type": item.type,
                "head": mention(item.head, item.head_places),
                "tail": mention(item.tail, item.tail_places),
                **_probable(item),
            }
            for item in record.relations
        ],
        "events": [
            {
                "type": event.type,
                "trigger": (mention(event.trigger, event.places) or None),
                "arguments": [argument(item) for item in event.arguments],
                **_probable(event),
            }
            for event in record.events
        ],
    }


def _probable(item: Entity | Relation | Event | Argument) -> dict[str, float]:
    return {} if item.probability is None else {"probability": round(item.probability, 4)}


def _labeled(place: Region | Segment | Track) -> dict[str, str]:
    return {} if place.label is None else {"label": place.label}


def _masked(region: Region) -> dict[str, Any]:
    mask = region.mask
    return {} if mask is None else {"mask": {"size": list(mask.size), "counts": list(mask.counts)}}


def _placed(region: Region) -> dict[str, int]:
    return {"image": region.image} if region.image else {}


def read_string(data: Mapping[str, Any], key: str, kind: str) -> str:
    """Return the non-empty string ``data[key]`` of an item; ``kind`` names the item in the error."""
    value = data.get(key)
    if not isinstance(value, str) or not value:
        raise UmieError(f"{kind} has {key} {shown(value)}: expected a non-empty string")
    return value


def _load_object(line: str) -> dict[str, Any]:
    data = parse_line(line)
    if not isinstance(data, dict):
        raise UmieError(f"record is {shown(data)}: expected a JSON object")
    if _OLD_LICENSE in data:
        if "license" in data:
            raise UmieError("the record has both keys 'license' and 'licence': remove 'licence'")
        data["license"] = data.pop(_OLD_LICENSE)
    return data


def _values(
    line: str, data: Mapping[str, Any], call: Callable[..., Any], image_folder: str | None = None
) -> dict[str, Any]:
    """Return the arguments of a Record; ``call`` calls a function, and may collect its error and return None.

    Without a valid text, the annotation is not read, because its offsets mean nothing.
    """
    for key in data:
        if key not in KEYS:
            call(check_keys, "record key", [key], KEYS)
    values: dict[str, Any] = {"text": call(_text, data), "image_folder": image_folder}
    values |= {medium: call(_medium, data, medium) for medium in MEDIA}
    first, *values["more_images"] = call(_images, data) or [None]
    values["image"] = values["image"] if first is None else first
    if _may_hold_surrogates(line):
        written = {key if key in KEYS else shown(key): json.dumps(data[key], ensure_ascii=False) for key in data}
        checked = [call(_without_surrogates, value, name) for name, value in written.items()]
        if None in checked:  # an error was collected
            return {"text": None}
    for key, read in _FIELDS.items():
        if data.get(key) is not None:
            values[key] = call(read, data[key])
    if values["text"] is not None:
        for key, read_item in _ITEMS.items():
            items = call(_list, data.get(key), key)
            values[key] = () if items is None else [call(read_item, item, values["text"]) for item in items]
        if data.get("gold") is not None:
            values["gold"] = call(_gold, data["gold"], values)
    return values


def _gold(value: object, values: Mapping[str, Any]) -> Record:
    """Return the record as annotated: the line with these places and items."""
    with at("gold"):
        data = _object(value, "gold", tuple(_ITEMS))
        found = {
            key: [read_item(item, values["text"]) for item in _list(data.get(key), key)]
            for key, read_item in _ITEMS.items()
        }
        return Record(**{**values, **found})


def _may_hold_surrogates(line: str) -> bool:
    try:
        line.encode()
    except UnicodeEncodeError:
        return True
    return _SURROGATE_ESCAPE.search(line) is not None


def _without_surrogates(text: str, name: str) -> str:
    check_characters(text, name)
    return text


def _check_length(line: str) -> None:
    if len(line) > MAX_LINE:
        raise UmieError(f"the line has {len(line):,} characters; the limit is {MAX_LINE:,}: split the record")


def _check_text_length(text: str) -> None:
    if len(text) > MAX_TEXT:
        raise UmieError(f"text has {len(text):,} characters; the limit is {MAX_TEXT:,}: split the record")


def _text(data: Mapping[str, Any]) -> str:
    text = data.get("text")
    if not isinstance(text, str) or not (text.strip() or any(map(data.get, (*MEDIA, "images")))):
        raise UmieError(f"text is {shown(text)}: every record needs a non-empty text, an image, a sound or a video")
    _check_text_length(text)
    return text


def _medium(data: Mapping[str, Any], medium: Medium) -> str | None:
    name = data.get(medium)
    if not isinstance(name, str | None):
        raise UmieError(f"{medium} is {shown(name)}: use a file name, or null if there is no {medium}")
    return name


def _images(data: Mapping[str, Any]) -> list[str]:
    names = _list(data.get("images"), "images")
    check_num_images(len(names))
    for name in names:
        _string(name, "images holds")
    if names and data.get("image") is not None:
        raise UmieError("the record has both keys 'image' and 'images': use one")
    return names


def _identifier(value: object) -> str:
    if not isinstance(value, str | int) or isinstance(value, bool):
        raise UmieError(f"id is {shown(value)}: use a string or an integer")
    return str(value)


def _list(value: object, key: str) -> list[Any]:
    if not isinstance(value, list | None):
        raise UmieError(f"{key} is {shown(value)}: expected a list")
    return value or []


def _string(value: object, what: str) -> str:
    if not isinstance(value, str):
        raise UmieError(f"{what} {shown(value)}: expected a string")
    return value


def _object(value: object, kind: str, keys: Sequence[str]) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise UmieError(f"{kind} is {shown(value)}: expected a JSON object")
    check_keys(f"{kind} key", value, keys)
    return value


def _mention(value: object, text: str, kind: str) -> tuple[Span | None, Places]:
    """Return a span and places, given as ``[start, end]`` or as an object with ``span`` or indices of places, or both.

    The ``text`` of an object is optional, and checked; it needs a span.
    """
    if not isinstance(value, dict):
        return check_span(value, kind), NOWHERE
    return _covered(_object(value, kind, ("span", "text", "type", *PLACES.values())), text, kind)


def _covered(data: Mapping[str, Any], text: str, kind: str) -> tuple[Span | None, Places]:
    places, span = _places(data, kind), _span(data, text, kind)
    return (span if places else check_span(span, kind)), places


def _places(data: Mapping[str, Any], kind: str) -> Places:
    return Places(*(tuple(_list(data.get(PLACES[medium]), f"{PLACES[medium]} of {kind}")) for medium in MEDIA))


def _span(data: Mapping[str, Any], text: str, kind: str) -> Span | None:
    """Return ``data["span"]``, if present; ``data["text"]``, if present, must equal the text that the span covers."""
    if data.get("span") is None:
        if data.get("text") in (None, ""):
            return None
        raise UmieError(f"{kind} text {shown(data['text'])} has no span: add `span`, its offsets, or remove `text`")
    span = check_span(data.get("span"), kind)
    if data.get("text") not in (None, text[slice(*span)]):
        problem = f"differs from the text of its span {list(span)}, {shown(text[slice(*span)])}"
        raise UmieError(f"{kind} text {shown(data['text'])} {problem}{advice(text, span, data['text'])}")
    return span


def _region(value: object) -> Region:
    data = _object(value, "region", ("box", "label", "mask", "image"))
    box = data.get("box")
    if not isinstance(box, list):
        raise UmieError(f"region box is {shown(box)}: expected [x1, y1, x2, y2], relative to the image (0..1)")
    mask = data.get("mask")
    if mask is not None:
        fields = _object(mask, "mask", ("size", "counts"))
        mask = Mask(*(tuple(_list(fields.get(key), f"mask {key}")) for key in ("size", "counts")))
    return Region(tuple(box), _label(data, "region"), mask, data.get("image", 0))


def _segment(value: object) -> Segment:
    data = _object(value, "segment", ("interval", "label"))
    interval = data.get("interval")
    if not isinstance(interval, list):
        raise UmieError(f"segment interval is {shown(interval)}: expected [start, end] in seconds")
    return Segment(tuple(interval), _label(data, "segment"))


def _track(value: object) -> Track:
    data = _object(value, "track", ("times", "boxes", "label"))
    for key in ("times", "boxes"):
        if not isinstance(data.get(key), list):
            raise UmieError(f"track {key} is {shown(data.get(key))}: expected a list, one for each frame")
    boxes = data["boxes"]
    for box in boxes:
        if not isinstance(box, list | None):
            raise UmieError(f"track box is {shown(box)}: expected [x1, y1, x2, y2], relative (0..1), or null")
    return Track(tuple(data["times"]), tuple(boxes), _label(data, "track"))


def _label(data: Mapping[str, Any], kind: str) -> str | None:
    label = data.get("label")
    return None if label is None else _string(label, f"{kind} label holds")


def _entity(value: object, text: str) -> Entity:
    data = _object(value, "entity", ("type", "span", "text", "probability", *PLACES.values()))
    span, places = _covered(data, text, "entity")
    covered = "" if span is None else text[slice(*span)]
    return Entity(read_string(data, "type", "entity"), span, covered, *places, data.get("probability"))


def _relation(value: object, text: str) -> Relation:
    data = _object(value, "relation", ("type", "head", "tail", "probability"))
    (head, head_places), (tail, tail_places) = (
        _mention(data.get(end), text, f"relation {end}") for end in ("head", "tail")
    )
    kind = read_string(data, "type", "relation")
    return Relation(kind, head, tail, head_places, tail_places, data.get("probability"))


def _event(value: object, text: str) -> Event:
    data = _object(value, "event", ("type", "trigger", "arguments", "probability"))
    trigger = data.get("trigger")
    span, places = (None, NOWHERE) if trigger is None else _mention(trigger, text, "event trigger")
    arguments = []
    for item in _list(data.get("arguments"), "arguments"):
        filler = _object(item, "argument", ("role", "span", "region", "text", "probability", *PLACES.values()))
        role = read_string(filler, "role", "argument")
        owner = f"argument {shown(role)}"
        shown_by = _places(filler, owner)
        if filler.get("region") is not None:
            if filler.get("span") is not None or shown_by:
                raise UmieError(f"{owner} has `region` and other fillers: use `regions`, a list")
            shown_by = Places(regions=(filler["region"],))
        covered = _span(filler, text, owner)
        arguments.append(Argument(role, covered, *shown_by, filler.get("probability")))
    return Event(read_string(data, "type", "event"), span, tuple(arguments), *places, data.get("probability"))


_FIELDS: dict[str, Callable[[Any], Any]] = {
    "id": _identifier,
    "tasks": lambda value: tuple(_string(item, "tasks holds") for item in _list(value, "tasks")),
    "labels": check_schema,
    "source": lambda value: _string(value, "source is"),
    "license": lambda value: _string(value, "license is"),
}
_ITEMS: dict[str, Callable[[Any, str], Any]] = {
    "regions": lambda value, text: _region(value),
    "segments": lambda value, text: _segment(value),
    "tracks": lambda value, text: _track(value),
    "entities": _entity,
    "relations": _relation,
    "events": _event,
}
