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
    Region,
    Relation,
    Span,
    annotated_spans,
    check_region,
    check_schema,
    check_span,
    region_references,
)
from umie.records.offsets import advice

T = TypeVar("T")

MAX_TEXT = 100_000  # characters; bounds the cost of one span, so that reading time is linear in the size of the file
KEYS = (
    "text", "image", "regions", "entities", "relations", "events", "id", "tasks", "source", "license", "labels",
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

    return Record(**_values(line, _load_object(line), call), image_folder=image_folder)


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
    if isinstance(values["regions"], list):
        for owner, region in region_references(entities, events):
            tried(check_region, owner, region, len(values["regions"]))
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
    if record.image is not None and not isinstance(record.image, str):
        raise UmieError("the record holds its image in memory: save the image and set `image` to its file name")
    _check_text_length(record.text)

    def mention(span: Span) -> dict[str, Any]:
        return {"span": list(span), "text": record.surface(span)}

    def argument(item: Argument) -> dict[str, Any]:
        filler = {"region": item.region} if item.span is None else mention(item.span)
        return {"role": item.role, **filler}

    data: dict[str, Any] = {
        "id": record.id,
        "text": record.text,
        "image": record.image,
        "regions": [
            {"box": list(region.box), **({"label": region.label} if region.label is not None else {})}
            for region in record.regions
        ],
        "entities": [
            {"type": item.type, **mention(item.span), **({"regions": list(item.regions)} if item.regions else {})}
            for item in record.entities
        ],
        "relations": [
            {"type": item.type, "head": mention(item.head), "tail": mention(item.tail)} for item in record.relations
        ],
        "events": [
            {
                "type": event.type,
                "trigger": None if event.trigger is None else mention(event.trigger),
                "arguments": [argument(item) for item in event.arguments],
            }
            for event in record.events
        ],
        "tasks": None if record.tasks is None else list(record.tasks),
        "source": record.source,
        "license": record.license,
        "labels": None if record.labels is None else {task: list(labels) for task, labels in record.labels.items()},
    }
    kept = {key: value for key, value in data.items() if value not in (None, []) or (key == "tasks" and value == [])}
    line = _encode(kept)
    check_characters(line, "record")
    _check_length(line)
    return line


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


def _values(line: str, data: Mapping[str, Any], call: Callable[..., Any]) -> dict[str, Any]:
    """Return the arguments of a Record; ``call`` calls a function, and may collect its error and return None.

    Without a valid text, the annotation is not read, because its offsets mean nothing.
    """
    for key in data:
        if key not in KEYS:
            call(check_keys, "record key", [key], KEYS)
    values: dict[str, Any] = {"text": call(_text, data), "image": call(_image, data)}
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
    return values


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
    if not isinstance(text, str) or not (text.strip() or data.get("image")):
        raise UmieError(f"text is {shown(text)}: every record needs a non-empty text or an image")
    _check_text_length(text)
    return text


def _image(data: Mapping[str, Any]) -> str | None:
    image = data.get("image")
    if not isinstance(image, str | None):
        raise UmieError(f"image is {shown(image)}: use a file name, or null if there is no image")
    return image


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


def _mention(value: object, text: str, kind: str) -> Span:
    """Return a span given as ``[start, end]`` or as an object with ``span`` and optional ``text``, which is checked."""
    if isinstance(value, dict):
        return _span(_object(value, kind, ("span", "text", "type")), text, kind)
    return check_span(value, kind)


def _span(data: Mapping[str, Any], text: str, kind: str) -> Span:
    """Return ``data["span"]``; ``data["text"]``, if present, must equal the text that the span covers."""
    span = check_span(data.get("span"), kind)
    if data.get("text") not in (None, text[slice(*span)]):
        problem = f"differs from the text of its span {list(span)}, {shown(text[slice(*span)])}"
        raise UmieError(f"{kind} text {shown(data['text'])} {problem}{advice(text, span, data['text'])}")
    return span


def _region(value: object) -> Region:
    data = _object(value, "region", ("box", "label"))
    box = data.get("box")
    if not isinstance(box, list):
        raise UmieError(f"region box is {shown(box)}: expected [x1, y1, x2, y2], relative to the image (0..1)")
    label = data.get("label")
    return Region(box=tuple(box), label=None if label is None else _string(label, "region label holds"))


def _entity(value: object, text: str) -> Entity:
    data = _object(value, "entity", ("type", "span", "text", "regions"))
    span = _span(data, text, "entity")
    regions = tuple(_list(data.get("regions"), "regions of an entity"))
    return Entity(read_string(data, "type", "entity"), span, text[slice(*span)], regions)


def _relation(value: object, text: str) -> Relation:
    data = _object(value, "relation", ("type", "head", "tail"))
    ends = (_mention(data.get(end), text, f"relation {end}") for end in ("head", "tail"))
    return Relation(read_string(data, "type", "relation"), *ends)


def _event(value: object, text: str) -> Event:
    data = _object(value, "event", ("type", "trigger", "arguments"))
    trigger = data.get("trigger")
    arguments = []
    for item in _list(data.get("arguments"), "arguments"):
        filler = _object(item, "argument", ("role", "span", "region", "text"))
        role = read_string(filler, "role", "argument")
        span = None if filler.get("span") is None else _span(filler, text, f"argument {shown(role)}")
        arguments.append(Argument(role, span, filler.get("region")))
    return Event(
        read_string(data, "type", "event"),
        None if trigger is None else _mention(trigger, text, "event trigger"),
        tuple(arguments),
    )


_FIELDS: dict[str, Callable[[Any], Any]] = {
    "id": _identifier,
    "tasks": lambda value: tuple(_string(item, "tasks holds") for item in _list(value, "tasks")),
    "labels": check_schema,
    "source": lambda value: _string(value, "source is"),
    "license": lambda value: _string(value, "license is"),
}
_ITEMS: dict[str, Callable[[Any, str], Any]] = {
    "regions": lambda value, text: _region(value),
    "entities": _entity,
    "relations": _relation,
    "events": _event,
}
