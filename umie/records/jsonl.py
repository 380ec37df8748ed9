"""The JSONL form of records: one line, one record."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from umie.errors import UmieError, at, check_characters, check_keys, shown
from umie.files import atomic_write, read_lines
from umie.records.model import Argument, Entity, Event, Record, Region, Relation, Span, check_span

KEYS = (
    "text", "image", "regions", "entities", "relations", "events", "id", "tasks", "source", "licence", "labels",
)  # fmt: skip


def read_jsonl(path: str | Path, images: str | Path | None = None) -> Iterator[Record]:
    """Yield the records of a JSONL file, one a line; blank lines are passed over.

    Args:
        path: the file.
        images: the folder of the pictures; by default the folder of the file.

    Raises:
        UmieError: a line cannot be read as a record; the message names file, line and value.
    """
    for _, record in read_numbered_jsonl(path, images):
        yield record


def read_numbered_jsonl(path: str | Path, images: str | Path | None = None) -> Iterator[tuple[int, Record]]:
    """Yield the records of a JSONL file as ``read_jsonl`` does, each with the number of its line."""
    folder = str(images if images is not None else Path(path).parent)
    for number, line in read_lines(Path(path)):
        if line.strip():
            with at(f"{path}:{number}"):
                record = replace(record_from_json(line), image_folder=folder)
            yield number, record


def write_jsonl(path: str | Path, records: Iterable[Record]) -> None:
    """Write records as JSONL, atomically: the file appears whole, or not at all.

    Raises:
        UmieError: a record holds its picture in memory; save it and give its file name instead.
    """
    with atomic_write(path) as file:
        for record in records:
            file.write(record_to_json(record) + "\n")


def record_from_json(line: str) -> Record:
    """Return the record of one JSONL line.

    Raises:
        UmieError: not a JSON object, an unknown key, or a value that does not fit.
    """
    try:
        data = json.loads(line)
    except (ValueError, RecursionError) as error:  # not JSON, or a number of too many digits
        raise UmieError(f"not valid JSON: {error}") from error
    data = _object(data, "record", KEYS)
    text = data.get("text")
    if not isinstance(text, str) or not (text.strip() or data.get("image")):
        raise UmieError(f"text is {shown(text)}: every record needs a text that is not empty, or a picture")
    for key, value in data.items():
        check_characters(json.dumps(value, ensure_ascii=False), key)
    image = data.get("image")
    if image is not None and not isinstance(image, str):
        raise UmieError(f"image is {image!r}: give a file name, or null for a text without a picture")
    identifier = data.get("id")
    return Record(
        text=text,
        image=image,
        regions=tuple(_region(item) for item in _list(data, "regions")),
        entities=tuple(_entity(item, text) for item in _list(data, "entities")),
        relations=tuple(_relation(item, text) for item in _list(data, "relations")),
        events=tuple(_event(item, text) for item in _list(data, "events")),
        id=None if identifier is None else str(identifier),
        tasks=None
        if data.get("tasks") is None
        else tuple(_string_item(item, "tasks") for item in _list(data, "tasks")),
        source=_note(data, "source"),
        licence=_note(data, "licence"),
        labels=data.get("labels"),
    )


def record_to_json(record: Record) -> str:
    """Return the JSONL line of a record; what is empty is left out."""
    if record.image is not None and not isinstance(record.image, str):
        raise UmieError("this record holds its picture in memory; save the picture and give its file name")

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
        "entities": [{"type": entity.type, **mention(entity.span)} for entity in record.entities],
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
        "licence": record.licence,
        "labels": None if record.labels is None else {task: list(labels) for task, labels in record.labels.items()},
    }
    kept = {key: value for key, value in data.items() if value not in (None, []) or (key == "tasks" and value == [])}
    line = json.dumps(kept, ensure_ascii=False)
    check_characters(line, "record")
    return line


def _object(value: object, kind: str, keys: Sequence[str]) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise UmieError(f"{kind} is {shown(value)}: expected a JSON object")
    check_keys(f"{kind} key", value, keys)
    return value


def _list(data: Mapping[str, Any], key: str) -> list[Any]:
    value = data.get(key)
    if value is None:
        return []
    if not isinstance(value, list):
        raise UmieError(f"{key} is {shown(value)}: expected a list")
    return value


def _string(data: Mapping[str, Any], key: str, kind: str) -> str:
    value = data.get(key)
    if not isinstance(value, str) or not value:
        raise UmieError(f"{kind} has {key} {shown(value)}: expected a string that is not empty")
    return value


def _note(data: Mapping[str, Any], key: str) -> str | None:
    value = data.get(key)
    if value is not None and not isinstance(value, str):
        raise UmieError(f"{key} is {shown(value)}: expected a string")
    return value


def _string_item(value: object, kind: str) -> str:
    if not isinstance(value, str):
        raise UmieError(f"{kind} holds {shown(value)}: expected a string")
    return value


def _mention(value: object, text: str, kind: str) -> Span:
    """Read a span given as ``[start, end]`` or as an object with ``span`` and, to be checked, ``text``."""
    if isinstance(value, dict):
        _object(value, kind, ("span", "text", "type"))
        span = check_span(value.get("span"), kind)
        covered = text[span[0] : span[1]]
        if value.get("text") not in (None, covered):
            raise UmieError(
                f"{kind} text {shown(value['text'])} differs from what its span {list(span)} covers, {covered!r}"
            )
        return span
    return check_span(value, kind)


def _region(value: object) -> Region:
    data = _object(value, "region", ("box", "label"))
    box = data.get("box")
    if not isinstance(box, list):
        raise UmieError(f"region box is {shown(box)}: expected [x1, y1, x2, y2], relative to the picture (0..1)")
    label = data.get("label")
    return Region(box=tuple(box), label=None if label is None else _string_item(label, "region label"))


def _entity(value: object, text: str) -> Entity:
    data = _object(value, "entity", ("type", "span", "text"))
    span = _mention({key: data.get(key) for key in ("span", "text")}, text, "entity")
    return Entity(_string(data, "type", "entity"), span)


def _relation(value: object, text: str) -> Relation:
    data = _object(value, "relation", ("type", "head", "tail"))
    ends = (_mention(data.get(end), text, f"relation {end}") for end in ("head", "tail"))
    return Relation(_string(data, "type", "relation"), *ends)


def _event(value: object, text: str) -> Event:
    data = _object(value, "event", ("type", "trigger", "arguments"))
    trigger = data.get("trigger")
    arguments = []
    for item in _list(data, "arguments"):
        filler = _object(item, "argument", ("role", "span", "region", "text"))
        role = _string(filler, "role", "argument")
        span = None
        if filler.get("span") is not None:
            span = _mention({key: filler.get(key) for key in ("span", "text")}, text, f"argument {role!r}")
        arguments.append(Argument(role, span, filler.get("region")))
    return Event(
        _string(data, "type", "event"),
        None if trigger is None else _mention(trigger, text, "event trigger"),
        tuple(arguments),
    )
