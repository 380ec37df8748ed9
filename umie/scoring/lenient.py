"""Predicted items without offsets: removed from a line of predictions and kept as strings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from umie.errors import UmieError, shown
from umie.records import NO_RELATION
from umie.scoring.counts import Key


def pop_strings(data: dict[str, Any], text: str) -> dict[str, list[Key]]:
    """Remove the items without offsets from a line, because a record cannot hold them.

    Args:
        data: the line's values; changed in place.
        text: the record's text.

    Returns:
        The removed items as strings, label first, by kind of task.

    Raises:
        UmieError: a removed item has no label, or its other mention is malformed.
    """
    strings: dict[str, list[Key]] = {}
    for item in _pop(data, "entities", ()):
        strings.setdefault("entities", []).append((_label(item, "type", "entity"), item["text"]))
    for item in _pop(data, "relations", ("head", "tail")):
        name = _label(item, "type", "relation")
        ends = [_string(item.get(end), text) for end in ("head", "tail")]
        strings.setdefault("relations", []).extend([(name, *ends)] if name.lower() != NO_RELATION else [])
    for item in _pop(data, "events", ("trigger",)):
        name, trigger = _label(item, "type", "event"), item["trigger"]["text"]
        strings.setdefault("events", []).append((name, trigger))
        arguments = [argument for argument in _objects(item, "arguments") if argument.get("region") is None]
        strings.setdefault("arguments", []).extend(_argument(argument, name, trigger, text) for argument in arguments)
    for item in _objects(data, "events"):
        for argument in _pop(item, "arguments", ()):
            trigger = None if item.get("trigger") is None else _string(item["trigger"], text)
            key = _argument(argument, _label(item, "type", "event"), trigger, text)
            strings.setdefault("arguments", []).append(key)
    return strings


def _pop(data: dict[str, Any], key: str, mentions: tuple[str, ...]) -> list[dict[str, Any]]:
    """Remove from a list the items that have a mention without offsets, or are one themselves."""
    popped = [
        item
        for item in _objects(data, key)
        if any(_is_bare_text(item.get(name)) for name in mentions) or (not mentions and _is_bare_text(item))
    ]
    if popped:
        data[key] = [item for item in data[key] if not any(item is other for other in popped)]
    return popped


def _objects(data: Mapping[str, Any], key: str) -> list[dict[str, Any]]:
    value = data.get(key)
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def _is_bare_text(mention: Any) -> bool:
    """Return whether a mention has a text but neither a span nor a region."""
    return (
        isinstance(mention, dict)
        and mention.get("span") is None
        and mention.get("region") is None
        and isinstance(mention.get("text"), str)
        and bool(mention["text"])
    )


def _argument(argument: Mapping[str, Any], name: str, trigger: str | None, text: str) -> Key:
    return (_label(argument, "role", "argument"), _string(argument, text), name, trigger)


def _label(item: Mapping[str, Any], key: str, kind: str) -> str:
    value = item.get(key)
    if not isinstance(value, str) or not value:
        raise UmieError(f"{kind} has {key} {shown(value)}: expected a non-empty string")
    return value


def _string(mention: Any, text: str) -> str:
    """Return the text of a mention: a span, an object with a span, or an object with only a text."""
    if _is_bare_text(mention):
        return str(mention["text"])
    span = mention.get("span") if isinstance(mention, dict) else mention
    if not (isinstance(span, list) and len(span) == 2 and all(type(edge) is int for edge in span)):
        raise UmieError(f"mention is {shown(mention)}: use its span [start, end] or its text")
    start, end = span
    if not 0 <= start < end <= len(text):
        raise UmieError(f"span {span} is not inside the text of {len(text)} characters")
    return text[start:end]
