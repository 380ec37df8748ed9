"""Which tasks an extraction asks, in which order, and with whose labels."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

from umie import tasks
from umie.errors import UmieError, UnknownNameError
from umie.extraction.result import Notice
from umie.processor import UmieProcessor
from umie.records import Entity, Record
from umie.tasks import Task


def check_tasks(wanted: Sequence[str] | None, processor: UmieProcessor) -> tuple[str, ...]:
    """Return the tasks to ask, each once, in the order of asking.

    Args:
        wanted: names; None takes the tasks that the checkpoint was trained for, or all built-in ones if it names none.
        processor: of the checkpoint.

    Raises:
        UmieError: an unknown task, or none.
    """
    if wanted is None:
        return tasks.ordered(processor.task_options) or tasks.ordered()
    if isinstance(wanted, str):
        raise UmieError(f"tasks is {wanted!r}: give a list of names, [{wanted!r}]")
    if not wanted:
        raise UmieError("tasks is empty: name at least one, or leave it out")
    return tasks.ordered(wanted)


def build_tasks(
    names: Collection[str], labels: Mapping[str, Sequence[str]] | None, processor: UmieProcessor
) -> tuple[dict[str, Task[Any]], list[Notice]]:
    """Return the tasks, and those that they ask about, with the labels of this call; and which labels are new.

    Raises:
        UmieError: labels of a task that is not asked, or that are none.
    """
    needed = tasks.with_sources(names)
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


def blank(record: Record, asked: tuple[str, ...]) -> Record:
    """Return the record without annotation; what is found will be its own."""
    nothing: tuple[Entity, ...] = ()
    return replace(record, entities=nothing, relations=(), events=(), tasks=asked, labels=None)
