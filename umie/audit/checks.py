"""What can be wrong with one record: errors that make it unsound, warnings that make it doubtful."""

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
    """Something that is wrong (``is_error``) or doubtful about a record, and what to do."""

    is_error: bool
    message: str


@cache
def all_tasks() -> Mapping[str, Task[Any]]:
    """Return every registered task with its default options."""
    return {name: tasks.registry.build(name) for name in tasks.registry.names()}


def check_record(record: Record, *, images: bool = True) -> Iterator[Finding]:
    """Yield what is wrong with a record that could be read at all.

    A ``Record`` cannot hold a span outside its text, a box outside its image, or a region that does not exist;
    this looks for the rest.

    Args:
        record: the record.
        images: whether to seek the file of its image.
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
    yield Finding(True, f"image {shown(record.image)} {state.value}{folder}: put it there, or name the right folder")


def _check_labels(record: Record) -> Iterator[Finding]:
    known = all_tasks()
    for name in record.tasks or ():
        if name not in known:
            yield Finding(False, f"tasks names {name!r}, which is no task here: {', '.join(known)}")
    for name, schema in (record.labels or {}).items():
        if name not in known:
            yield Finding(False, f"labels names the task {name!r}, which is no task here: {', '.join(known)}")
            continue
        for label in dict.fromkeys(known[name].used_labels(record)):
            if label not in schema and label != NO_RELATION:
                yield Finding(
                    True, f"{name} label {label!r} is not in the record's own schema {shown(list(schema))}: mend either"
                )
        for label, count in Counter(schema).items():
            if count > 1 or label != label.strip():
                yield Finding(False, f"labels of {name!r} holds {label!r} repeatedly or padded: give each once")
    for name, task in known.items():
        if not record.annotated_for(name) and not _shares_annotation(record, name) and any(task.used_labels(record)):
            yield Finding(
                False, f"annotation for {name!r}, but tasks is {list(record.tasks or ())}: it will not be used"
            )


def _shares_annotation(record: Record, name: str) -> bool:
    """Say whether a task that the record is annotated for uses the same part of the annotation."""
    shared = ("events", "arguments")
    kinds = {task.name: task.kind for task in all_tasks().values()}
    return kinds[name] in shared and any(record.annotated_for(other) for other, kind in kinds.items() if kind in shared)


def _check_spans(record: Record) -> Iterator[Finding]:
    for kind, span in _spans(record):
        covered = record.surface(span)
        if covered != covered.strip():
            yield Finding(False, f"{kind} {list(span)} covers {shown(covered)}, with white space at its end: trim it")


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
                yield Finding(False, f"{kind} {_brief(item)} stands {count} times: keep one")
    for event in record.events:
        for argument, count in Counter(event.arguments).items():
            if count > 1:
                yield Finding(
                    False, f"argument {argument.role!r} of event {event.type!r} stands {count} times: keep one"
                )
    if len(record.entities) > 1:
        types: dict[Span, set[str]] = {}
        for entity in record.entities:
            types.setdefault(entity.span, set()).add(entity.type)
        for span, names in types.items():
            if len(names) > 1:
                yield Finding(False, f"span {list(span)} is an entity of several types, {', '.join(sorted(names))}")


def _check_relations(record: Record) -> Iterator[Finding]:
    pairs: dict[tuple[Span, Span], set[str]] = {}
    for relation in record.relations:
        pairs.setdefault((relation.head, relation.tail), set()).add(relation.type)
        if relation.head == relation.tail:
            yield Finding(
                False, f"relation {relation.type!r} relates {list(relation.head)} to itself: head and tail are one span"
            )
    for (head, tail), names in pairs.items():
        if NO_RELATION in names and len(names) > 1:
            yield Finding(
                False,
                f"pair {list(head)} {list(tail)} is {NO_RELATION!r} and {', '.join(sorted(names - {NO_RELATION}))}",
            )


def _check_boxes(record: Record) -> Iterator[Finding]:
    if record.regions and record.image is None:
        yield Finding(False, f"{len(record.regions)} regions of no image: give image, or read with --images")
    for box, count in Counter(region.box for region in record.regions).items():
        if count > 1:
            yield Finding(False, f"box {list(box)} stands {count} times among the regions")


def _brief(item: Any) -> str:
    return shown({name: value for name, value in vars(item).items() if name != "arguments"})
