"""Checks of records and files: errors make a record invalid, warnings make it suspicious."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple

from umie import tasks
from umie.audit.images import Durations, Presence, presence, seconds_of
from umie.data.source import Source
from umie.errors import UmieError, shown
from umie.records import MEDIA, NO_RELATION, Record, Span
from umie.records.labels import LabelForms
from umie.records.model import annotated_spans
from umie.records.no_relation import doubt, doubtful_labels
from umie.records.offsets import seem_utf16
from umie.records.places import PLACES, PLURALS, check_within
from umie.tasks import Task

_ROUNDING = 0.1  # seconds by which annotated places may end after their sound or video


class Finding(NamedTuple):
    """An error or a warning about a record, with a hint how to fix it."""

    is_error: bool
    message: str


@cache
def all_tasks() -> Mapping[str, Task[Any]]:
    """Return every registered task with its default options."""
    return {name: tasks.registry.build(name) for name in tasks.ordered()}


def check_record(record: Record, *, images: bool = True, known: Durations | None = None) -> Iterator[Finding]:
    """Yield the errors and warnings of a record.

    A ``Record`` cannot be built with a span outside its text, a box outside its image, or a missing region, so these
    are not checked again. ``images`` is whether to open the files of images, sounds and videos; ``known`` keeps what
    was found in them, for other records with the same files.
    """
    if images:
        yield from _check_media(record, {} if known is None else known)
    yield from _check_labels(record)
    for kind, span in annotated_spans(record.entities, record.relations, record.events):
        covered = record.surface(span)
        if covered != covered.strip():
            yield Finding(False, f"{kind} {list(span)} covers {shown(covered)} with surrounding whitespace: trim it")
    spans = [span for _, span in annotated_spans(record.entities, record.relations, record.events)]
    if seem_utf16(record.text, spans):
        yield Finding(False, "the offsets seem to count UTF-16 units: try --format-option offsets=utf16")
    yield from _check_repetitions(record)
    yield from _check_relations(record)
    if record.regions and record.image is None:
        yield Finding(False, f"{len(record.regions)} regions without an image: set image, or read with --images")
    for medium in MEDIA[1:]:
        if places := (record.places(medium) if medium not in record.media else ()):
            yield Finding(False, f"{len(places)} {PLACES[medium]} without {medium}: set `{medium}`")
    for (number, box), count in Counter((region.image, region.box) for region in record.regions).items():
        if count > 1:
            place = f" of image {number}" if number else ""
            yield Finding(False, f"duplicate region {list(box)}{place} ({count} times)")


@dataclass
class Validation:
    """The number of records that could be read, and the numbers of errors and warnings."""

    records: int = 0
    errors: int = 0
    warnings: int = 0


def validate(
    source: Source,
    report: Callable[[str, Finding], None],
    *,
    images: bool = True,
    progress: Callable[[], None] = lambda: None,
) -> Validation:
    """Check all records of a file; only a file that cannot be read as a whole is an exception.

    ``report`` is called with the location and the finding; the location is empty for a malformed record, whose message
    begins with it. ``images`` is whether to open the files of images, sounds and videos. ``progress`` is called once
    per record.
    """
    result = Validation()

    def note(place: str, finding: Finding) -> None:
        result.errors += finding.is_error
        result.warnings += not finding.is_error
        report(place, finding)

    def note_malformed(error: UmieError) -> None:
        note("", Finding(True, str(error)))

    doubtful: Counter[str] = Counter()
    forms = LabelForms()
    first_uses: dict[str, int] = {}
    known: Durations = {}
    for number, record in source.numbered(note_malformed):
        result.records += 1
        progress()
        forms.add(record)
        doubtful.update(doubtful_labels(item.type for item in record.relations))
        for finding in check_record(record, images=images, known=known):
            note(source.place(number), finding)
        if record.id is not None and (first := first_uses.setdefault(record.id, number)) != number:
            message = f"id {shown(record.id)} is already used at {source.place(first)}: ids must be unique"
            note(source.place(number), Finding(True, message))
    for label, number in doubtful.items():
        note(str(source.path), Finding(False, f"{number:,} times, {doubt(label)}"))
    for message in forms.collisions():
        note(str(source.path), Finding(False, message))
    if not result.records and not result.errors:
        note_malformed(UmieError(f"{source.path}: contains no records"))
    return result


def _check_media(record: Record, known: Durations) -> Iterator[Finding]:
    for medium, number in record.numbered_media:
        name = f"{PLURALS[medium][:-1]} {shown(record.of(medium)[number])}"
        state = presence(record, medium, number)
        if state is not Presence.FOUND:
            folder = "" if record.image_folder is None else f" (in {record.image_folder})"
            yield Finding(True, f"{name} {state.value}{folder}: add it, or use another image folder")
            continue
        try:
            seconds = seconds_of(record, medium, number, known)
        except UmieError as error:
            yield Finding(True, str(error))
            continue
        places: Sequence[Any] = record.places(medium) if medium != "image" else ()
        for index, place in enumerate(places):
            try:
                check_within(medium, [place], seconds)
            except UmieError as error:
                yield Finding(True, f"{name}: {error}")
            else:
                if place.interval[1] > seconds + _ROUNDING:
                    where = f"{PLACES[medium]}[{index}] ends at {place.interval[1]:.2f} seconds"
                    yield Finding(False, f"{name}: {where}, after its end, {seconds:.2f} seconds")


def _check_labels(record: Record) -> Iterator[Finding]:
    known = all_tasks()
    for name in record.tasks or ():
        if name not in known:
            yield Finding(False, f"tasks contains the unknown task {shown(name)}; known: {', '.join(known)}")
    for name, schema in (record.labels or {}).items():
        if name not in known:
            yield Finding(False, f"labels contains the unknown task {shown(name)}; known: {', '.join(known)}")
            continue
        for label in dict.fromkeys(known[name].used_labels(record)):
            if label not in schema and label != NO_RELATION:
                yield Finding(
                    True,
                    f"{name} label {shown(label)} is not in the record's schema {shown(list(schema))}: fix one of them",
                )
        for label, count in Counter(schema).items():
            if count > 1 or label != label.strip():
                yield Finding(
                    False, f"labels of {shown(name)} contains {shown(label)} repeatedly or with outer whitespace"
                )
    shared = ("events", "arguments")  # kinds of the same part of the annotation
    shared_is_used = any(task.kind in shared and record.annotated_for(name) for name, task in known.items())
    for name, task in known.items():
        is_used = record.annotated_for(name) or (task.kind in shared and shared_is_used)
        if not is_used and any(task.used_labels(record)):
            yield Finding(
                False, f"annotation for {shown(name)} is not used, because tasks is {shown(list(record.tasks or ()))}"
            )


def _check_repetitions(record: Record) -> Iterator[Finding]:
    for kind, items in (("entity", record.entities), ("relation", record.relations), ("event", record.events)):
        for item, count in Counter(items).items() if len(items) > 1 else ():
            if count > 1:
                fields = {name: value for name, value in vars(item).items() if name != "arguments"}
                yield Finding(False, f"duplicate {kind} {shown(fields)} ({count} times)")
    for event in record.events:
        for argument, count in Counter(event.arguments).items():
            if count > 1:
                yield Finding(
                    False, f"duplicate argument {shown(argument.role)} of event {shown(event.type)} ({count} times)"
                )
    types: dict[Span, set[str]] = {}
    for entity in record.entities:
        if entity.span is not None:
            types.setdefault(entity.span, set()).add(entity.type)
    for span, names in types.items():
        if len(names) > 1:
            yield Finding(False, f"span {list(span)} has several entity types: {_listed(names)}")


def _check_relations(record: Record) -> Iterator[Finding]:
    pairs: dict[tuple[Span, Span], set[str]] = {}
    for relation in record.relations:
        if relation.head is None or relation.tail is None:
            continue
        pairs.setdefault((relation.head, relation.tail), set()).add(relation.type)
        if relation.head == relation.tail:
            yield Finding(
                False, f"relation {shown(relation.type)} has the same span {list(relation.head)} as head and tail"
            )
    for (head, tail), names in pairs.items():
        if NO_RELATION in names and len(names) > 1:
            others = _listed(names - {NO_RELATION})
            yield Finding(False, f"pair {list(head)} {list(tail)} is both {NO_RELATION!r} and {others}")


def _listed(names: Iterable[str]) -> str:
    return ", ".join(shown(name)[1:-1] for name in sorted(names))
