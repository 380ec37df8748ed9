"""What is asked after what: relations about pairs of entities, arguments about events."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from itertools import permutations
from typing import Any

from umie import tasks
from umie.errors import UmieError, UnknownNameError
from umie.extraction.result import Notice
from umie.processor import UmieProcessor
from umie.records import NO_RELATION, Entity, Event, Record, Relation, Span
from umie.tasks import Task

STAGES = ("mner", "mre", "med", "meae")
SOURCES = {"mre": "mner", "meae": "med"}  # what asks about what another task found


def default_tasks(processor: UmieProcessor) -> tuple[str, ...]:
    """Return the tasks that a checkpoint was trained for; all of the paper's where it names none."""
    return tuple(task for task in STAGES if task in processor.task_options) or STAGES


def check_tasks(wanted: Sequence[str] | None, processor: UmieProcessor) -> tuple[str, ...]:
    """Return the tasks to ask, each once, in the order of asking.

    Raises:
        UmieError: an unknown task, or none.
    """
    if wanted is None:
        return default_tasks(processor)
    if isinstance(wanted, str):
        raise UmieError(f"tasks is {wanted!r}: give a list of names, [{wanted!r}]")
    for task in wanted:
        if task not in STAGES:
            raise UnknownNameError("task", task, STAGES)
    if not wanted:
        raise UmieError("tasks is empty: name at least one, or leave it out")
    return tuple(task for task in STAGES if task in wanted)


def build_tasks(
    names: Collection[str], labels: Mapping[str, Sequence[str]] | None, processor: UmieProcessor
) -> tuple[dict[str, Task[Any]], list[Notice]]:
    """Return the tasks, and those that they ask about, with the labels of this call; and which labels are new.

    Raises:
        UmieError: labels of a task that is not asked, or that are none.
    """
    needed = [task for task in STAGES if task in {*names, *(SOURCES[name] for name in names if name in SOURCES)}]
    built = {name: processor.task(name) for name in needed}
    notices = []
    for name, given in (labels or {}).items():
        if name not in built:
            raise UnknownNameError("task in labels:", name, needed)
        known = built[name].labels
        options = {**processor.task_options.get(name, {}), "labels": given}
        built[name] = tasks.registry.build(name, **options)
        new = [label for label in built[name].labels if label not in known]
        if new:
            shown = ", ".join(map(repr, new))
            notices.append(Notice("labels", f"{name}: the checkpoint was not trained for {shown}"))
    return built, notices


def needs_source(task: str, asked: Collection[str], given: Record) -> bool:
    """Say whether a task asks about what another one finds: where that one is asked, too, or nothing is given.

    Pairs that are given are asked about as they are: they are the question. Events that are given are asked about
    only where events are not sought at all, so that an annotation never slips into an answer.
    """
    if task == "mre":
        return not given.relations and ("mner" in asked or not given.entities)
    return "med" in asked or not given.events


def with_pairs(record: Record, given: Record, is_found: bool, max_pairs: int) -> tuple[Record, list[Notice]]:
    """Return the record with the pairs that MRE is asked about, and whether some were left out.

    Args:
        record: with the entities that were found.
        given: the record as it was given.
        is_found: whether to ask about what was found.
        max_pairs: the most pairs; of more those that stand nearest to each other are kept.
    """
    if given.relations:
        pairs = list(dict.fromkeys((item.head, item.tail) for item in given.relations))
        return replace(record, relations=tuple(_unknown(pairs))), []
    spans = sorted({entity.span for entity in (record if is_found else given).entities})
    pairs = list(permutations(spans, 2))
    notices = []
    if len(pairs) > max_pairs:
        nearest = sorted(pairs, key=lambda pair: (_gap(*pair), pair))[:max_pairs]
        notices.append(
            Notice("pairs", f"mre: {len(pairs)} pairs of entities; the {max_pairs} nearest were asked about")
        )
        pairs = sorted(nearest)
    return replace(record, relations=tuple(_unknown(pairs))), notices


def with_events(record: Record, given: Record, is_found: bool) -> Record:
    """Return the record with the events that MEAE is asked about, without arguments."""
    events = (record if is_found else given).events
    return replace(record, events=tuple(Event(event.type, event.trigger) for event in events))


def blank(record: Record, asked: tuple[str, ...]) -> Record:
    """Return the record without annotation; what is found will be its own."""
    nothing: tuple[Entity, ...] = ()
    return replace(record, entities=nothing, relations=(), events=(), tasks=asked, labels=None)


def _unknown(pairs: Sequence[tuple[Span, Span]]) -> list[Relation]:
    return [Relation(NO_RELATION, head, tail) for head, tail in pairs]


def _gap(head: Span, tail: Span) -> int:
    """Return the characters between two spans; negative where they overlap."""
    return max(head[0], tail[0]) - min(head[1], tail[1])
