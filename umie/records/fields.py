"""Read and check the values of a JSONL line; each error names the value."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from umie.errors import UmieError, check_keys, shown
from umie.records.model import Argument, Entity, Event, Region, Relation, Span, check_span

MAX_TEXT = 100_000  # characters; bounds the cost of one span, so that reading time is linear in the size of the file


def read_text(data: Mapping[str, Any]) -> str:
    """Return the text; it may be empty only if there is an image."""
    text = data.get("text")
    if not isinstance(text, str) or not (text.strip() or data.get("image")):
        raise UmieError(f"text is {shown(text)}: every record needs a non-empty text or an image")
    check_text_length(text)
    return text


def check_text_length(text: str) -> None:
    """Raise UmieError if the text is longer than MAX_TEXT."""
    if len(text) > MAX_TEXT:
        raise UmieError(f"text has {len(text):,} characters; the limit is {MAX_TEXT:,}: split the record")


def read_image(data: Mapping[str, Any]) -> str | None:
    """Return the file name of the image, or None."""
    image = data.get("image")
    if image is not None and not isinstance(image, str):
        raise UmieError(f"image is {shown(image)}: use a file name, or null if there is no image")
    return image


def read_identifier(data: Mapping[str, Any]) -> str | None:
    """Return the id as a string, or None."""
    identifier = data.get("id")
    if not isinstance(identifier, str | int | None) or isinstance(identifier, bool):
        raise UmieError(f"id is {shown(identifier)}: use a string or an integer")
    return None if identifier is None else str(identifier)


def read_tasks(data: Mapping[str, Any]) -> tuple[str, ...] | None:
    """Return the names of the annotated tasks, or None."""
    if data.get("tasks") is None:
        return None
    return tuple(_string_item(item, "tasks") for item in read_list(data, "tasks"))


def read_labels(data: Mapping[str, Any]) -> dict[str, tuple[str, ...]] | None:
    """Return the label schema of each task, or None."""
    given = data.get("labels")
    if given is None:
        return None
    if not isinstance(given, dict):
        raise UmieError(f"labels is {shown(given)}: expected lists of labels by task, e.g. {{'mner': ['person']}}")
    for task, labels in given.items():
        if not isinstance(labels, list) or not all(isinstance(label, str) and label for label in labels):
            raise UmieError(f"labels of {task!r} is {shown(labels)}: expected a list of non-empty strings")
    return {task: tuple(labels) for task, labels in given.items()}


def check_region_index(argument: Argument, num_regions: int) -> None:
    """Raise UmieError if the argument refers to a region that does not exist."""
    if argument.region is not None and argument.region >= num_regions:
        raise UmieError(
            f"argument {argument.role!r} refers to region {argument.region}, "
            f"but the record has {num_regions} regions (indices count from 0)"
        )


def check_object(value: object, kind: str, keys: Sequence[str]) -> Mapping[str, Any]:
    """Return ``value``; raise UmieError if it is not a JSON object or has other keys."""
    if not isinstance(value, dict):
        raise UmieError(f"{kind} is {shown(value)}: expected a JSON object")
    check_keys(f"{kind} key", value, keys)
    return value


def read_list(data: Mapping[str, Any], key: str) -> list[Any]:
    """Return the list ``data[key]``; an empty list if it is missing or null."""
    value = data.get(key)
    if value is None:
        return []
    if not isinstance(value, list):
        raise UmieError(f"{key} is {shown(value)}: expected a list")
    return value


def _string(data: Mapping[str, Any], key: str, kind: str) -> str:
    value = data.get(key)
    if not isinstance(value, str) or not value:
        raise UmieError(f"{kind} has {key} {shown(value)}: expected a non-empty string")
    return value


def read_note(data: Mapping[str, Any], key: str) -> str | None:
    """Return the string ``data[key]``, or None."""
    value = data.get(key)
    if value is not None and not isinstance(value, str):
        raise UmieError(f"{key} is {shown(value)}: expected a string")
    return value


def _string_item(value: object, kind: str) -> str:
    if not isinstance(value, str):
        raise UmieError(f"{kind} holds {shown(value)}: expected a string")
    return value


def _mention(value: object, text: str, kind: str) -> Span:
    """Return a span given as ``[start, end]`` or as an object with ``span`` and optional ``text``, which is checked."""
    if isinstance(value, dict):
        return _span(check_object(value, kind, ("span", "text", "type")), text, kind)
    return check_span(value, kind)


def _span(data: Mapping[str, Any], text: str, kind: str) -> Span:
    """Return ``data["span"]``; ``data["text"]``, if present, must equal the text that the span covers."""
    span = check_span(data.get("span"), kind)
    if data.get("text") not in (None, text[slice(*span)]):
        raise UmieError(
            f"{kind} text {shown(data['text'])} differs from the text of its span {list(span)}, {text[slice(*span)]!r}"
        )
    return span


def read_region(value: object) -> Region:
    """Return a region of the image."""
    data = check_object(value, "region", ("box", "label"))
    box = data.get("box")
    if not isinstance(box, list):
        raise UmieError(f"region box is {shown(box)}: expected [x1, y1, x2, y2], relative to the image (0..1)")
    label = data.get("label")
    return Region(box=tuple(box), label=None if label is None else _string_item(label, "region label"))


def read_entity(value: object, text: str) -> Entity:
    """Return an entity of ``text``."""
    data = check_object(value, "entity", ("type", "span", "text"))
    span = _span(data, text, "entity")
    return Entity(_string(data, "type", "entity"), span, text[slice(*span)])


def read_relation(value: object, text: str) -> Relation:
    """Return a relation between two spans of ``text``."""
    data = check_object(value, "relation", ("type", "head", "tail"))
    ends = (_mention(data.get(end), text, f"relation {end}") for end in ("head", "tail"))
    return Relation(_string(data, "type", "relation"), *ends)


def read_event(value: object, text: str) -> Event:
    """Return an event of ``text`` with its arguments."""
    data = check_object(value, "event", ("type", "trigger", "arguments"))
    trigger = data.get("trigger")
    arguments = []
    for item in read_list(data, "arguments"):
        filler = check_object(item, "argument", ("role", "span", "region", "text"))
        role = _string(filler, "role", "argument")
        span = None
        if filler.get("span") is not None:
            span = _span(filler, text, f"argument {role!r}")
        arguments.append(Argument(role, span, filler.get("region")))
    return Event(
        _string(data, "type", "event"),
        None if trigger is None else _mention(trigger, text, "event trigger"),
        tuple(arguments),
    )
