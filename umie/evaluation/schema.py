"""Which tasks a checkpoint is asked about a data set, and with whose labels."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from umie import tasks
from umie.errors import UmieError, check_choice
from umie.processor import UmieProcessor
from umie.records import Record
from umie.scoring import annotated_tasks
from umie.tasks import Task

SCHEMAS = ("checkpoint", "data")


@dataclass(frozen=True)
class Asked:
    """The tasks to ask, and what to know about them.

    Args:
        tasks: by name, in the order of asking; MED is among them where MEAE needs it.
        scored: the names of those that are scored.
        notes: labels that the two sides do not share, tasks that were not trained.
    """

    tasks: dict[str, Task[Any]]
    scored: tuple[str, ...]
    notes: tuple[str, ...]


def choose_tasks(
    processor: UmieProcessor,
    records: Sequence[Record],
    wanted: Sequence[str] | None = None,
    *,
    schema: str = "checkpoint",
    source: str = "the data",
) -> Asked:
    """Return what a checkpoint is asked about annotated records.

    Args:
        processor: names the tasks that the checkpoint was trained for, and their labels.
        records: the annotated records.
        wanted: tasks; None takes those that the records are annotated for and the checkpoint was trained for.
        schema: ``checkpoint`` asks for the labels it was trained with, ``data`` for those of the records: the schema
            that they carry, then what else they use, in alphabetical order.
        source: what messages call the data.

    Raises:
        UmieError: no record, an unknown task or schema, a task that is not annotated, labels of which none is known.
    """
    check_choice("schema", schema, SCHEMAS)
    if not records:
        raise UmieError(f"{source}: holds no record: give a file of annotated records")
    for task in wanted or ():
        tasks.task_class(task)  # raises where there is none
    annotated = annotated_tasks(records)
    trained = tasks.ordered(processor.task_options) or tasks.ordered()
    scored = tasks.ordered(task for task in wanted or annotated if wanted or task in trained)
    for task in scored:
        if task not in annotated:
            has = ", ".join(annotated) or "nothing"
            raise UmieError(f"{source}: no record is annotated for {task!r} (but for {has}): leave the task out")
    if not scored:
        raise UmieError(
            f"{source}: is annotated for {', '.join(annotated) or 'nothing'}, the checkpoint was trained for "
            f"{', '.join(trained)}: give other data, or name a --task all the same"
        )
    notes = [f"{task}: the checkpoint was not trained for this task" for task in scored if task not in trained]
    left = [task for task in annotated if task not in scored]
    if left and not wanted:
        notes.append(f"not asked: {', '.join(left)}, which the checkpoint was not trained for")
    needed = tasks.ordered([*scored, *(str(one.source) for one in map(tasks.task_class, scored) if one.is_staged)])
    built = {}
    for name in needed:
        own = [record for record in records if record.annotated_for(name)]
        built[name], found = _with_schema(processor, name, own, schema, source, is_scored=name in scored)
        notes += found
    return Asked(built, scored, tuple(notes))


def _with_schema(
    processor: UmieProcessor, name: str, records: Sequence[Record], schema: str, source: str, *, is_scored: bool
) -> tuple[Task[Any], list[str]]:
    task = processor.task(name)
    used = Counter(label for record in records for label in task.used_labels(record))
    declared = dict.fromkeys(label for record in records for label in (record.labels or {}).get(name, ()))
    new = {label: count for label, count in used.items() if label not in task.labels}
    shown = ", ".join(
        f"{label} ({count})" for label, count in sorted(new.items(), key=lambda item: (-item[1], item[0]))
    )
    if schema == "data" and (used or declared):
        labels = [*declared, *sorted(set(used) - set(declared))]
        asked = tasks.registry.build(name, **{**processor.task_options.get(name, {}), "labels": labels})
        unseen = [label for label in labels if label not in task.labels]
        return asked, [f"{name}: labels of the data that no training saw: {', '.join(unseen)}"] if unseen else []
    if not new or not is_scored:
        return task, []
    share = f"{sum(new.values())} of {sum(used.values())} {task.label_noun} labels of the data"
    if len(new) == len(used):
        raise UmieError(
            f"{source}: {name}: none of its labels is in the checkpoint's schema ({', '.join(task.labels)}): {shown}; "
            "ask for the data's with --schema data, or rename them"
        )
    note = (
        f"{name}: {share} are not in the checkpoint's schema and cannot be found: {shown}; --schema data asks for them"
    )
    return task, [note]
