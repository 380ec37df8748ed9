"""Checks of a single record: errors make it invalid, warnings make it suspicious."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any, NamedTuple

from umie import tasks
from umie.audit.images import Presence, presence
from umie.errors import shown
from umie.records import NO_RELATION, Record, Span
from umie.tasks import Task


class Finding(NamedTuple):
    """An error or a warning about a record, with a hint how to fix it."""

    is_error: bool
    message: str


@cache
def all_tasks() -> Mapping[str, Task[Any]]:
    """Return every registered task with its default options."""
    return {name: tasks.registry.build(name) for name in tasks.registry.names()}


def check_record(record: Record, *, images: bool = True) -> Iterator[Finding]:
    """Yield the errors and warnings of a record.

    A ``Record`` cannot be built with a span outside its text, a box outside its image, or a missing region, so these
    are not checked again.

    Args:
        record: the record.
        images: whether to check that the image file exists.
    """
    if images:
        yield from _check_image(record)
    yield from _check_labels(record)
    yield from _check_spans(record)
    yield from _check_repetitions(record)
    yield from _check_relations(record)
    yield from _check_boxes(record)


def _check_image(record: Record) -> Iterator[Finding]:
    state = presence(record)
    if state in (Presence.NONE, Presence.FOUND):
        return
    folder = "" if record.image_folder is None else f" (in {record.image_folder})"
    yield Finding(True, f"image {shown(record.image)} {state.value}{folder}: add it, or use another image folder")


def _check_labels(record: Record) -> Iterator[Finding]:
    known = all_tasks()
    for name in record.tasks or ():
        if name not in known:
            yield Finding(False, f"tasks contains the unknown task {name!r}; known: {', '.join(known)}")
    for name, schema in (record.labels or {}).items():
        if name not in known:
            yield Finding(False, f"labels contains the unknown task {name!r}; known: {', '.join(known)}")
            continue
        for label in dict.fromkeys(known[name].used_labels(record)):
            if label not in schema and label != NO_RELATION:
                yield Finding(
                    True, f"{name} label {label!r} is not in the record's schema {shown(list(schema))}: fix one of them"
                )
        for label, count in Counter(schema).items():
            if count > 1 or label != label.strip():
                yield Finding(False, f"labels of {name!r} contains {label!r} repeatedly or with outer whitespace")
    for name, task in known.items():
        if not record.annotated_for(name) and not _shares_annotation(record, name) and any(task.used_labels(record)):
            yield Finding(False, f"annotation for {name!r} is not used, because tasks is {list(record.tasks or ())}")


def _shares_annotation(record: Record, name: str) -> bool:
    """Return whether another task that the record is annotated for uses the same part of the annotation."""
    shared = ("events", "arguments")
    kinds = {task.name: task.kind for task in all_tasks().values()}
    return kinds[name] in shared and any(record.annotated_for(other) for other, kind in kinds.items() if kind in shared)


def _check_spans(record: Record) -> Iterator[Finding]:
    for kind, span in _spans(record):
        covered = record.surface(span)
        if covered != covered.strip():
            yield Finding(False, f"{kind} {list(span)} covers {shown(covered)} with surrounding whitespace: trim it")


def _spans(record: Record) -> Iterator[tuple[str, Span]]:
    for entity in record.entities:
        yield "entity", entity.span
    for relation in record.relations:
        yield "relation head", relation.head
        yield "relation tail", relation.tail
    for event in record.events:
        if event.trigger is not None:
            yield "event trigger", event.trigger
        for argument in event.arguments:
            if argument.span is not None:
                yield f"argument {argument.role!r}", argument.span


def _check_repetitions(record: Record) -> Iterator[Finding]:
    for kind, items in (("entity", record.entities), ("relation", record.relations), ("event", record.events)):
        if len(items) < 2:
            continue
        for item, count in Counter(items).items():
            if count > 1:
                yield Finding(False, f"duplicate {kind} {_brief(item)} ({count} times)")
    for event in record.events:
        for argument, count in Counter(event.arguments).items():
            if count > 1:
                yield Finding(False, f"duplicate argument {argument.role!r} of event {event.type!r} ({count} times)")
    if len(record.entities) > 1:
        types: dict[Span, set[str]] = {}
        for entity in record.entities:
            types.setdefault(entity.span, set()).add(entity.type)
        for span, names in types.items():
            if len(names) > 1:
                yield Finding(False, f"span {list(span)} has several entity types: {', '.join(sorted(names))}")


def _check_relations(record: Record) -> Iterator[Finding]:
    pairs: dict[tuple[Span, Span], set[str]] = {}
    for relation in record.relations:
        pairs.setdefault((relation.head, relation.tail), set()).add(relation.type)
        if relation.head == relation.tail:
            yield Finding(False, f"relation {relation.type!r} has the same span {list(relation.head)} as head and tail")
    for (head, tail), names in pairs.items():
        if NO_RELATION in names and len(names) > 1:
            others = ", ".join(sorted(names - {NO_RELATION}))
            yield Finding(False, f"pair {list(head)} {list(tail)} is both {NO_RELATION!r} and {others}")


def _check_boxes(record: Record) -> Iterator[Finding]:
    if record.regions and record.image is None:
        yield Finding(False, f"{len(record.regions)} regions without an image: set image, or read with --images")
    for box, count in Counter(region.box for region in record.regions).items():
        if count > 1:
            yield Finding(False, f"duplicate region {list(box)} ({count} times)")


def _brief(item: Any) -> str:
    return shown({name: value for name, value in vars(item).items() if name != "arguments"})
