"""The JSONL form of records: one record per line."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from umie.errors import UmieError, check_characters, check_keys, shown
from umie.files import MAX_LINE, atomic_write, bounded_lines, parse_json
from umie.records.fields import (
    check_region_index,
    check_text_length,
    read_entity,
    read_event,
    read_identifier,
    read_image,
    read_labels,
    read_list,
    read_note,
    read_region,
    read_relation,
    read_tasks,
    read_text,
)
from umie.records.model import Argument, Record, Span

T = TypeVar("T")

KEYS = (
    "text", "image", "regions", "entities", "relations", "events", "id", "tasks", "source", "license", "labels",
)  # fmt: skip
_OLD_LICENSE = "licence"  # still read in files written before the key was renamed
_encode = json.JSONEncoder(ensure_ascii=False).encode  # json.dumps would build an encoder for each line
_SURROGATE_ESCAPE = re.compile(r"\\u[dD][89a-fA-F]")


def read_jsonl(path: str | Path, images: str | Path | None = None) -> Iterator[Record]:
    """Yield the records of a JSONL file, one per line; blank lines are skipped.

    Args:
        path: the file.
        images: the directory of the images; by default, the directory of the file.

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

    Args:
        path: the file.
        images: the directory of the images; by default, the directory of the file.
        on_error: called with every error of a malformed line, after which reading continues with the next line.
            Without it, the first error is raised.

    Raises:
        UmieError: the file cannot be read, or, without ``on_error``, a line is malformed.
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
            try:
                line = record_to_json(record)
            except UmieError as error:
                raise UmieError(f"{path}: record {number}: {error}") from error
            file.write(line + "\n")


def record_from_json(line: str, image_folder: str | None = None) -> Record:
    """Return the record of one JSONL line.

    Args:
        line: the line.
        image_folder: the directory of its image.

    Raises:
        UmieError: the line is not a JSON object, has an unknown key, or has an invalid value.
    """
    data = _load_object(line)
    check_keys("record key", data, KEYS)
    text = read_text(data)
    if _may_hold_surrogates(line):
        for key, value in data.items():
            check_characters(json.dumps(value, ensure_ascii=False), key if key in KEYS else shown(key))
    return Record(
        text=text,
        image=read_image(data),
        regions=tuple(read_region(item) for item in read_list(data, "regions")),
        entities=tuple(read_entity(item, text) for item in read_list(data, "entities")),
        relations=tuple(read_relation(item, text) for item in read_list(data, "relations")),
        events=tuple(read_event(item, text) for item in read_list(data, "events")),
        id=read_identifier(data),
        tasks=read_tasks(data),
        source=read_note(data, "source"),
        license=read_note(data, "license"),
        labels=read_labels(data),
        image_folder=image_folder,
    )


def errors_of_line(line: str) -> list[UmieError]:
    """Return every error of a JSONL line; an empty list if the line is valid.

    ``record_from_json`` raises only the first. Each item of the annotation is checked separately, so that one bad
    span does not hide the next; only the first error of an item is reported.
    """
    errors: list[UmieError] = []

    def tried(read: Callable[..., T], *arguments: Any) -> T | None:
        try:
            return read(*arguments)
        except UmieError as error:
            errors.append(error)
            return None

    data = tried(_load_object, line)
    if data is None:
        return errors
    for key in data:
        tried(check_keys, "record key", [key], KEYS)
    text, image = tried(read_text, data), tried(read_image, data)
    if _may_hold_surrogates(line):
        before = len(errors)
        for key, value in data.items():
            tried(check_characters, json.dumps(value, ensure_ascii=False), key if key in KEYS else shown(key))
        if len(errors) > before:
            return errors  # offsets into the text mean nothing until its characters are fixed
    for read in (read_identifier, read_tasks, read_labels):
        tried(read, data)
    for key in ("source", "license"):
        tried(read_note, data, key)
    if text is None:
        return errors
    record = Record(text, image=image if text.strip() else "?")

    def items(key: str, read: Callable[..., T], *arguments: Any) -> list[T]:
        read_items = [tried(read, item, *arguments) for item in tried(read_list, data, key) or ()]
        return [item for item in read_items if item is not None]

    items("regions", read_region)
    spans = [entity.span for entity in items("entities", read_entity, text)]
    for relation in items("relations", read_relation, text):
        spans += [relation.head, relation.tail]
    for event in items("events", read_event, text):
        spans += [] if event.trigger is None else [event.trigger]
        for argument in event.arguments:
            if argument.span is None:
                tried(check_region_index, argument, len(data.get("regions") or ()))
            else:
                spans.append(argument.span)
    for span in spans:
        tried(record.surface, span)
    return errors


def _load_object(line: str) -> dict[str, Any]:
    data = parse_line(line)
    if not isinstance(data, dict):
        raise UmieError(f"record is {shown(data)}: expected a JSON object")
    if _OLD_LICENSE in data:
        if "license" in data:
            raise UmieError("the record has both keys 'license' and 'licence': remove 'licence'")
        data["license"] = data.pop(_OLD_LICENSE)
    return data


def parse_line(line: str) -> object:
    """Return the JSON value of a line; raise UmieError if it is too long, not valid JSON, or repeats a key."""
    _check_length(line)
    return parse_json(line)


def _may_hold_surrogates(line: str) -> bool:
    """Return whether a string of the line may contain an unpaired surrogate, escaped or literal."""
    if _SURROGATE_ESCAPE.search(line):
        return True
    try:
        line.encode()
    except UnicodeEncodeError:
        return True
    return False


def record_to_json(record: Record) -> str:
    """Return the JSONL line of a record; empty values are omitted.

    Raises:
        UmieError: the record holds its image in memory, or is too long for ``read_jsonl``.
    """
    if record.image is not None and not isinstance(record.image, str):
        raise UmieError("the record holds its image in memory: save the image and set `image` to its file name")

    check_text_length(record.text)

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
        "license": record.license,
        "labels": None if record.labels is None else {task: list(labels) for task, labels in record.labels.items()},
    }
    kept = {key: value for key, value in data.items() if value not in (None, []) or (key == "tasks" and value == [])}
    line = _encode(kept)
    check_characters(line, "record")
    _check_length(line)
    return line


def _check_length(line: str) -> None:
    if len(line) > MAX_LINE:
        raise UmieError(f"the line has {len(line):,} characters; the limit is {MAX_LINE:,}: split the record")
