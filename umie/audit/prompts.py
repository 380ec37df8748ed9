"""Leaks in prompts: gold labels in instructions, lists of only the gold labels, answers in instructions or texts.

The prompts are those of ``task.queries(record)``. Tasks are treated as black boxes, so that tasks of plugins are
covered: the dependence of an instruction on the annotation is found by changing the annotation.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from umie import tasks
from umie.audit.checks import all_tasks
from umie.records import Argument, Record
from umie.tasks import Task

_WORD = re.compile(r"[^\W_]+")
_MIN_ANSWER_LENGTH = 8  # characters; shorter answers occur in texts by chance


@dataclass
class PromptReport:
    """The leaks in the prompts of a task over the records of a file.

    Args:
        task: the name of the task.
        queries: the number of queries.
        label_dependent: instructions that change when the annotated labels are exchanged, so they contain a gold
            label. For ``meae`` it is the gold event type of the published prompt, an oracle unless the events come from
            ``med``.
        span_dependent: instructions that contain a gold span, such as the pair of ``mre``, which is part of the task.
        partial_lists: instructions that list some but not all labels of the schema.
        only_gold_lists: partial lists in which all labels are gold labels.
        answer_in_instruction: instructions that contain the whole answer verbatim.
        answer_in_text: texts that contain the whole answer verbatim (of 8 characters or more).
        gold_label_in_text: the share (0..1) of gold labels that occur in the text as words.
        other_label_in_text: the same share for labels that are not gold; a large gap to ``gold_label_in_text`` means
            that words reveal the label (as triggers legitimately do).
    """

    task: str
    queries: int = 0
    label_dependent: int = 0
    span_dependent: int = 0
    partial_lists: int = 0
    only_gold_lists: int = 0
    answer_in_instruction: int = 0
    answer_in_text: int = 0
    gold_label_in_text: float | None = None
    other_label_in_text: float | None = None
    _counts: dict[str, int] = field(default_factory=lambda: dict.fromkeys(("gold", "gold_in", "other", "other_in"), 0))

    def summary(self) -> dict[str, Any]:
        """Return the counts and shares in JSON form."""
        return {name: value for name, value in vars(self).items() if not name.startswith("_")}

    @property
    def has_leak(self) -> bool:
        """Whether a prompt contains something that the model should predict."""
        return bool(self.label_dependent or self.only_gold_lists or self.answer_in_instruction or self.answer_in_text)


def schema_of(records: Iterable[Record]) -> dict[str, tuple[str, ...]]:
    """Return the declared and used labels of each task over all records, in order of first occurrence."""
    found: dict[str, dict[str, None]] = {name: {} for name in all_tasks()}
    for record in records:
        for name, labels in (record.labels or {}).items():
            if name in found:
                found[name].update(dict.fromkeys(labels))
        for name, task in all_tasks().items():
            if record.annotated_for(name):
                found[name].update(dict.fromkeys(task.used_labels(record)))
    return {name: tuple(labels) for name, labels in found.items() if labels}


def examine_prompts(records: Iterable[Record], schema: Mapping[str, Sequence[str]]) -> list[PromptReport]:
    """Examine the prompts of all tasks for records.

    Args:
        records: the records, consumed once.
        schema: the labels of each task, see ``schema_of``; tasks without labels are skipped.

    Returns:
        One report per task with at least one query.
    """
    built = {name: tasks.registry.build(name, labels=tuple(labels)) for name, labels in schema.items()}
    reports = {name: PromptReport(name) for name in built}
    for record in records:
        for name, task in built.items():
            if record.annotated_for(name):
                _examine(reports[name], task, record, schema)
    for report in reports.values():
        counts = report._counts
        report.gold_label_in_text = counts["gold_in"] / counts["gold"] if counts["gold"] else None
        report.other_label_in_text = counts["other_in"] / counts["other"] if counts["other"] else None
    return [report for report in reports.values() if report.queries]


def _examine(report: PromptReport, task: Task[Any], record: Record, schemas: Mapping[str, Sequence[str]]) -> None:
    schema = schemas[report.task]
    queries = task.queries(record)
    report.queries += len(queries)
    exchanged = _instructions(task, _exchange_labels(record, schemas), len(queries))
    shifted = _instructions(task, _without_spans(record), len(queries))
    gold = set(task.used_labels(record))
    for query, without_labels, without_spans in zip(queries, exchanged, shifted, strict=True):
        by_label = query.instruction != without_labels
        report.label_dependent += by_label
        report.span_dependent += query.instruction != without_spans and not by_label
        listed = _listed(query.instruction, schema)
        if listed and len(listed) < len(schema):
            report.partial_lists += 1
            report.only_gold_lists += bool(gold) and listed <= gold
        target = query.answer.strip()
        report.answer_in_instruction += bool(target) and target not in schema and _occurs_in(target, query.instruction)
        report.answer_in_text += len(target) >= _MIN_ANSWER_LENGTH and target in record.text
    _counts_labels(report, record.text, gold, schema)


def _counts_labels(report: PromptReport, text: str, gold: set[str], schema: Sequence[str]) -> None:
    words = _words(text)
    for label in schema:
        kind = "gold" if label in gold else "other"
        report._counts[kind] += 1
        report._counts[f"{kind}_in"] += f" {_words(label).strip()} " in words


def _words(text: str) -> str:
    return f" {' '.join(_WORD.findall(text.casefold()))} "


def _listed(instruction: str, schema: Sequence[str]) -> set[str]:
    """Return the labels in an instruction; a label inside a longer one is not counted."""
    found = set()
    for label in sorted(schema, key=len, reverse=True):
        if label in instruction:
            found.add(label)
            instruction = instruction.replace(label, "\0")
    return found


def _instructions(task: Task[Any], record: Record, number: int) -> list[str | None]:
    """Return the instructions of a changed record, padded with None to the ``number`` of queries of the original."""
    found: list[str | None] = [query.instruction for query in task.queries(record)]
    return (found + [None] * number)[:number]  # equal spans may have merged queries


def _occurs_in(part: str, text: str) -> bool:
    return re.search(rf"(?<!\w){re.escape(part)}(?!\w)", text) is not None


def _exchange_labels(record: Record, schemas: Mapping[str, Sequence[str]]) -> Record:
    """Return the record with every label replaced by the next one of the schema."""
    by_kind = {task.kind: name for name, task in reversed(list(all_tasks().items()))}

    def other(kind: str, label: str) -> str:
        task = by_kind[kind]
        labels = list(schemas.get(task, ()))
        if len(labels) < 2:  # a schema of one label is extended by the default labels of the task
            labels += [default for default in all_tasks()[task].labels if default not in labels]
        return labels[(labels.index(label) + 1) % len(labels)] if label in labels else label

    return replace(
        record,
        entities=tuple(replace(entity, type=other("entities", entity.type)) for entity in record.entities),
        relations=tuple(replace(relation, type=other("relations", relation.type)) for relation in record.relations),
        events=tuple(
            replace(
                event,
                type=other("events", event.type),
                arguments=tuple(
                    replace(argument, role=other("arguments", argument.role)) for argument in event.arguments
                ),
            )
            for event in record.events
        ),
        labels=None,
    )


def _without_spans(record: Record) -> Record:
    """Return the record with every span of its annotation replaced by the whole text."""
    whole = (0, len(record.text))
    if not record.text:
        return record
    return replace(
        record,
        entities=tuple(replace(entity, span=whole, text="") for entity in record.entities),
        relations=tuple(replace(relation, head=whole, tail=whole) for relation in record.relations),
        events=tuple(
            replace(
                event,
                trigger=None if event.trigger is None else whole,
                arguments=tuple(
                    argument if argument.span is None else Argument(argument.role, whole)
                    for argument in event.arguments
                ),
            )
            for event in record.events
        ),
    )
