"""Whether a prompt gives the answer away: gold labels in instructions, label lists that vary, answers in the text.

A prompt is what ``task.queries(record)`` asks. The tests treat a task as a closed box, so they hold for tasks of
plugins as well: what an instruction depends on is found by changing the annotation and asking again.
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
_LEAST_ANSWER = 8  # characters; a shorter target that stands in a text is most often a coincidence


@dataclass
class PromptReport:
    """What the prompts of a task give away over the records of a file.

    Args:
        task: its name.
        queries: how many questions were asked.
        label_dependent: instructions that change when the labels of the annotation are exchanged: what they name
            is a gold label. For ``meae`` this is the gold event type of its published prompt, an oracle unless
            the events come from ``med``.
        span_dependent: instructions that name a gold span, such as the pair of ``mre``: given by the task's
            definition, and to be known.
        partial_lists: instructions that list some labels of the schema and not all.
        only_gold_lists: those among them whose listed labels are just the labels of the answer.
        answer_in_instruction: instructions that hold the whole answer, letter for letter.
        answer_in_text: texts that hold the whole answer, letter for letter (of 8 characters or more).
        gold_label_in_text: share of the answers' labels that stand in the text as words, 0..1.
        other_label_in_text: the same of labels that are not in the answer; a large gap to ``gold_label_in_text``
            means that words give the label away (as triggers do, rightly).
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
    _tally: dict[str, int] = field(default_factory=lambda: dict.fromkeys(("gold", "gold_in", "other", "other_in"), 0))

    def summary(self) -> dict[str, Any]:
        """Return the figures, as JSON holds them."""
        return {name: value for name, value in vars(self).items() if not name.startswith("_")}

    @property
    def tells(self) -> bool:
        """Whether something is named that a model shall find by itself."""
        return bool(self.label_dependent or self.only_gold_lists or self.answer_in_instruction or self.answer_in_text)


def schema_of(records: Iterable[Record]) -> dict[str, tuple[str, ...]]:
    """Return the labels of each task over all records, from their schemas and their annotation, in order of use."""
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
    """Ask every task's questions about some records, and look at what they give away.

    Args:
        records: the records; read once.
        schema: the labels of each task, see ``schema_of``; tasks that are not in it are left out.

    Returns:
        One report for each task that has a question.
    """
    built = {name: tasks.registry.build(name, labels=tuple(labels)) for name, labels in schema.items()}
    reports = {name: PromptReport(name) for name in built}
    for record in records:
        for name, task in built.items():
            if record.annotated_for(name):
                _examine(reports[name], task, record, schema)
    for report in reports.values():
        tally = report._tally
        report.gold_label_in_text = tally["gold_in"] / tally["gold"] if tally["gold"] else None
        report.other_label_in_text = tally["other_in"] / tally["other"] if tally["other"] else None
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
        report.answer_in_instruction += bool(target) and target not in schema and _stands_in(target, query.instruction)
        report.answer_in_text += len(target) >= _LEAST_ANSWER and target in record.text
    _tally_labels(report, record.text, gold, schema)


def _tally_labels(report: PromptReport, text: str, gold: set[str], schema: Sequence[str]) -> None:
    words = _words(text)
    for label in schema:
        kind = "gold" if label in gold else "other"
        report._tally[kind] += 1
        report._tally[f"{kind}_in"] += f" {_words(label).strip()} " in words


def _words(text: str) -> str:
    return f" {' '.join(_WORD.findall(text.casefold()))} "


def _listed(instruction: str, schema: Sequence[str]) -> set[str]:
    """Return the labels that an instruction names; a longer label hides a shorter one that it contains."""
    found = set()
    for label in sorted(schema, key=len, reverse=True):
        if label in instruction:
            found.add(label)
            instruction = instruction.replace(label, "\0")
    return found


def _instructions(task: Task[Any], record: Record, number: int) -> list[str | None]:
    """Return the instructions of a changed record, one for each of the ``number`` queries of the record itself."""
    found: list[str | None] = [query.instruction for query in task.queries(record)]
    return (found + [None] * number)[:number]  # spans that fell together may have made two queries one


def _stands_in(part: str, text: str) -> bool:
    return re.search(rf"(?<!\w){re.escape(part)}(?!\w)", text) is not None


def _exchange_labels(record: Record, schemas: Mapping[str, Sequence[str]]) -> Record:
    """Return the record with every label of its annotation replaced by the next one of the schema."""
    by_kind = {task.kind: name for name, task in reversed(list(all_tasks().items()))}

    def other(kind: str, label: str) -> str:
        task = by_kind[kind]
        labels = list(schemas.get(task, ()))
        if len(labels) < 2:  # a schema of one label has no other: take one of the task's own
            labels += [own for own in all_tasks()[task].labels if own not in labels]
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
    """Return the record with every span of its annotation moved onto the whole text."""
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
