"""Predicted items without offsets: taken out of a line of predictions, and kept as strings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from umie.errors import UmieError, shown
from umie.records import NO_RELATION
from umie.scoring.counts import Key


def take_loose(data: dict[str, Any], text: str) -> dict[str, list[Key]]:
    """Take the items out of a line that a record cannot hold, for want of offsets.

    Args:
        data: the line's values; such items are removed from it.
        text: the record's text.

    Returns:
        The items as strings, label first, by kind of task.

    Raises:
        UmieError: such an item has no label, or a mention beside the one without offsets makes no sense.
    """
    loose: dict[str, list[Key]] = {}
    for item in _take(data, "entities", ()):
        loose.setdefault("entities", []).append((_label(item, "type", "entity"), item["text"]))
    for item in _take(data, "relations", ("head", "tail")):
        name = _label(item, "type", "relation")
        ends = [_string(item.get(end), text) for end in ("head", "tail")]
        loose.setdefault("relations", []).extend([(name, *ends)] if name.lower() != NO_RELATION else [])
    for item in _take(data, "events", ("trigger",)):
        name, trigger = _label(item, "type", "event"), item["trigger"]["text"]
        loose.setdefault("events", []).append((name, trigger))
        fillers = [filler for filler in _objects(item, "arguments") if filler.get("region") is None]
        loose.setdefault("arguments", []).extend(_argument(filler, name, trigger, text) for filler in fillers)
    for item in _objects(data, "events"):
        for filler in _take(item, "arguments", ()):
            trigger = None if item.get("trigger") is None else _string(item["trigger"], text)
            key = _argument(filler, _label(item, "type", "event"), trigger, text)
            loose.setdefault("arguments", []).append(key)
    return loose


def _take(data: dict[str, Any], key: str, mentions: tuple[str, ...]) -> list[dict[str, Any]]:
    """Remove from a list the items of which a mention, or which themselves, are given by their text alone."""
    taken = [
        item
        for item in _objects(data, key)
        if any(_is_loose(item.get(name)) for name in mentions) or (not mentions and _is_loose(item))
    ]
    if taken:
        data[key] = [item for item in data[key] if not any(item is other for other in taken)]
    return taken


def _objects(data: Mapping[str, Any], key: str) -> list[dict[str, Any]]:
    value = data.get(key)
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def _is_loose(item: Any) -> bool:
    """Say whether a mention is given by its text alone."""
    return (
        isinstance(item, dict)
        and item.get("span") is None
        and item.get("region") is None
        and isinstance(item.get("text"), str)
        and bool(item["text"])
    )


def _argument(filler: Mapping[str, Any], name: str, trigger: str | None, text: str) -> Key:
    return (_label(filler, "role", "argument"), _string(filler, text), name, trigger)


def _label(item: Mapping[str, Any], key: str, kind: str) -> str:
    value = item.get(key)
    if not isinstance(value, str) or not value:
        raise UmieError(f"{kind} has {key} {shown(value)}: expected a string that is not empty")
    return value


def _string(mention: Any, text: str) -> str:
    """Return what a mention covers, given as a span, as an object with a span, or by its text."""
    if _is_loose(mention):
        return str(mention["text"])
    span = mention.get("span") if isinstance(mention, dict) else mention
    if not (isinstance(span, list) and len(span) == 2 and all(type(edge) is int for edge in span)):
        raise UmieError(f"{shown(mention)} is no mention: give its span [start, end], or its text")
    start, end = span
    if not 0 <= start < end <= len(text):
        raise UmieError(f"span {span} is not inside the text of {len(text)} characters")
    return text[start:end]
