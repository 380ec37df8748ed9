"""choose_tasks: the tasks and labels with which a checkpoint is evaluated on a data set."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from umie import tasks
from umie.errors import UmieError, check_choice
from umie.processor import UmieProcessor
from umie.records import Record
from umie.scoring import annotated_tasks
from umie.tasks import Task
from umie.tasks.labels import declared_labels, used_labels

SCHEMAS = ("checkpoint", "data")


@dataclass(frozen=True)
class TaskSelection:
    """The tasks of an evaluation."""

    tasks: dict[str, Task[Any]]  # in the order of asking, with tasks that others need, such as MED for MEAE
    scored: tuple[str, ...]
    notes: tuple[str, ...]  # warnings about unknown labels and untrained tasks


def choose_tasks(
    processor: UmieProcessor,
    records: Sequence[Record],
    wanted: Sequence[str] | None = None,
    *,
    schema: str = "checkpoint",
    source: str = "the data",
) -> TaskSelection:
    """Return the tasks to evaluate a checkpoint on.

    Args:
        processor: the checkpoint's processor, with the tasks it was trained for and their labels.
        records: the annotated records.
        wanted: names of tasks; None takes those that the records are annotated for and the checkpoint was trained for.
        schema: ``checkpoint`` asks for the labels of training; ``data`` for those of the records: the schema that they
            declare, then other labels that they use, in alphabetical order.
        source: the name of the data in messages.

    Raises:
        UmieError: there are no records, a task or schema is unknown, a task is not annotated, or the checkpoint knows
            none of its labels.
    """
    check_choice("schema", schema, SCHEMAS)
    if not records:
        raise UmieError(f"{source}: has no records: use a file of annotated records")
    annotated = annotated_tasks(records)
    trained = tasks.ordered(processor.task_options) or tasks.ordered()
    scored = tasks.ordered(wanted or [task for task in annotated if task in trained])
    for task in scored:
        if task not in annotated:
            has = ", ".join(annotated) or "nothing"
            raise UmieError(f"{source}: no record is annotated for {task!r} (only for {has}): omit the task")
    if not scored:
        raise UmieError(
            f"{source}: is annotated for {', '.join(annotated) or 'no task'}, but the checkpoint was trained for "
            f"{', '.join(trained)}: use other data, or select a task explicitly"
        )
    notes = [f"{task}: the checkpoint was not trained for this task" for task in scored if task not in trained]
    left = [task for task in annotated if task not in scored]
    if left and not wanted:
        notes.append(f"skipped, as the checkpoint was not trained for it: {', '.join(left)}")
    sources = [str(one.source) for one in map(tasks.task_class, scored) if one.is_staged]
    built = {}
    for name in tasks.ordered([*scored, *sources]):
        own = [record for record in records if record.annotated_for(name)]
        built[name], found = _with_schema(processor, name, own, schema, source, is_scored=name in scored)
        notes += found
    return TaskSelection(built, scored, tuple(notes))


def _with_schema(
    processor: UmieProcessor, name: str, records: Sequence[Record], schema: str, source: str, *, is_scored: bool
) -> tuple[Task[Any], list[str]]:
    task = processor.task(name)
    used = used_labels(task, records)
    declared = declared_labels(name, records)
    if schema == "data" and (used or declared):
        labels = [*declared, *sorted(set(used) - set(declared))]
        asked = tasks.registry.build(name, **{**processor.task_options.get(name, {}), "labels": labels})
        unseen = [label for label in labels if label not in task.labels]
        return asked, [f"{name}: labels unknown to the checkpoint: {', '.join(unseen)}"] if unseen else []
    new = {label: count for label, count in used.items() if label not in task.labels}
    if not new or not is_scored:
        return task, []
    by_count = sorted(new.items(), key=lambda item: (-item[1], item[0]))
    shown = ", ".join(f"{label} ({count})" for label, count in by_count)
    share = f"{sum(new.values())} of {sum(used.values())} {task.label_noun} labels of the data"
    if len(new) == len(used):
        raise UmieError(
            f"{source}: {name}: none of its labels are in the checkpoint's schema ({', '.join(task.labels)}): {shown}; "
            "rename them, or use schema 'data'"
        )
    note = (
        f"{name}: {share} are not in the checkpoint's schema and cannot be found: {shown}; schema 'data' asks for them"
    )
    return task, [note]
