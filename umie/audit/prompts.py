"""Leaks in prompts: gold labels in instructions, lists of only the gold labels, answers in instructions or texts.

The prompts are those of ``task.queries(record)``. Tasks are treated as black boxes, so that tasks of plugins are
covered: the dependence of an instruction on the annotation is found by changing the annotation.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from umie import tasks
from umie.audit.checks import all_tasks
from umie.records import Record, Span
from umie.tasks import Task

_WORD = re.compile(r"[^\W_]+")
_MIN_ANSWER_LENGTH = 8  # characters; shorter answers occur in texts by chance


@dataclass
class PromptReport:
    """The leaks in the prompts of a task over the records of a file: numbers of instructions, and shares (0..1).

    ``label_dependent`` instructions change when the annotated labels are exchanged, so they contain a gold label. For
    ``meae`` it is the gold event type of the published prompt, an oracle unless the events come from ``med``. A large
    gap between ``gold_label_in_text`` and ``other_label_in_text``, the share of labels that are not gold and occur in
    the text, means that words reveal the label (as triggers legitimately do).
    """

    task: str
    queries: int = 0
    label_dependent: int = 0
    span_dependent: int = 0  # contain a gold span, such as the pair of ``mre``, which is part of the task
    partial_lists: int = 0  # list some but not all labels of the schema
    only_gold_lists: int = 0  # partial lists in which all labels are gold labels
    answer_in_instruction: int = 0  # contain the whole answer verbatim
    answer_in_text: int = 0  # texts that contain the whole answer verbatim (of 8 characters or more)
    gold_label_in_text: float | None = None  # the share of gold labels that occur in the text as words
    other_label_in_text: float | None = None

    def summary(self) -> dict[str, Any]:
        """Return the counts and shares in JSON form."""
        return asdict(self)


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
    """Examine the prompts for records, which are consumed once; return one report per task with at least one query.

    ``schema`` has the labels of each task, see ``schema_of``; tasks without labels are skipped.
    """
    built = {name: tasks.registry.build(name, labels=tuple(labels)) for name, labels in schema.items()}
    reports = {name: PromptReport(name) for name in built}
    in_text: Counter[tuple[str, bool, bool]] = Counter()  # labels by task, whether they are gold and in the text
    for record in records:
        words = _words(record.text)
        for name, task in built.items():
            if record.annotated_for(name):
                gold = set(task.used_labels(record))
                _examine(reports[name], task, record, gold, schema)
                for label in schema[name]:
                    is_gold, is_in_text = label in gold, f" {_words(label).strip()} " in words
                    in_text[name, is_gold, is_in_text] += 1

    def share(name: str, is_gold: bool) -> float | None:
        found, missing = in_text[name, is_gold, True], in_text[name, is_gold, False]
        return found / (found + missing) if found or missing else None

    for name, report in reports.items():
        report.gold_label_in_text, report.other_label_in_text = share(name, True), share(name, False)
    return [report for report in reports.values() if report.queries]


def _examine(
    report: PromptReport, task: Task[Any], record: Record, gold: set[str], schemas: Mapping[str, Sequence[str]]
) -> None:
    schema = schemas[report.task]
    queries = task.queries(record)
    report.queries += len(queries)
    whole = (0, len(record.text))
    exchanged = _instructions(task, _changed(record, label=_other_labels(schemas)), len(queries))
    shifted = _instructions(task, _changed(record, span=whole) if record.text else record, len(queries))
    for query, without_labels, without_spans in zip(queries, exchanged, shifted, strict=True):
        by_label = query.instruction != without_labels
        report.label_dependent += by_label
        report.span_dependent += query.instruction != without_spans and not by_label
        listed = _listed(query.instruction, schema)
        if listed and len(listed) < len(schema):
            report.partial_lists += 1
            report.only_gold_lists += bool(gold) and listed <= gold
        target = query.answer.strip()
        if target and target not in schema:
            found = re.search(rf"(?<!\w){re.escape(target)}(?!\w)", query.instruction)
            report.answer_in_instruction += found is not None
        report.answer_in_text += len(target) >= _MIN_ANSWER_LENGTH and target in record.text


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


def _other_labels(schemas: Mapping[str, Sequence[str]]) -> Callable[[str, str], str]:
    """Return a function that returns the next label of the schema for a kind of task and a label."""
    by_kind = {task.kind: name for name, task in reversed(list(all_tasks().items()))}

    def other(kind: str, label: str) -> str:
        task = by_kind[kind]
        labels = list(schemas.get(task, ()))
        if len(labels) < 2:  # a schema of one label is extended by the default labels of the task
            labels += [default for default in all_tasks()[task].labels if default not in labels]
        return labels[(labels.index(label) + 1) % len(labels)] if label in labels else label

    return other


def _changed(
    record: Record, label: Callable[[str, str], str] = lambda kind, label: label, span: Span | None = None
) -> Record:
    """Return the record with other labels, or with ``span`` for every span of its annotation."""

    def moved(old: Span | None) -> Span | None:
        return old and (span or old)

    entities = [
        replace(item, type=label("entities", item.type), span=moved(item.span), text="") for item in record.entities
    ]
    relations = [
        replace(item, type=label("relations", item.type), head=moved(item.head), tail=moved(item.tail))
        for item in record.relations
    ]
    events = []
    for event in record.events:
        arguments = [
            replace(item, role=label("arguments", item.role), span=moved(item.span)) for item in event.arguments
        ]
        name = label("events", event.type)
        events.append(replace(event, type=name, trigger=moved(event.trigger), arguments=tuple(arguments)))
    return replace(
        record,
        entities=tuple(entities),
        relations=tuple(relations),
        events=tuple(events),
        labels=None if span is None else record.labels,  # other labels are outside the record's schema
    )
