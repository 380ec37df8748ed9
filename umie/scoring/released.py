"""The published scorer's behavior, reimplemented from its description, and the number of items it ignores.

Source: the evaluation code of ZUCC-AI/UMIE at a50b479. It writes gold and predictions as bracketed strings, reads both
with a bracket parser that takes the first word after a bracket as the label, and compares the lists. Items that its
parser cannot read are missing from gold, so no system is scored on them. Not reimplemented: the changes that its
tokenizer and its limits on length make to the strings.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from umie.records import NO_RELATION, Record, Relation, is_no_relation
from umie.tasks import ordered, registry, task_class
from umie.tasks.labels import declared_labels, used_labels

_Read = tuple[Any, str | None]  # the parsed item, and the reason if it is dropped


class _Schema(NamedTuple):
    """The parser's knowledge."""

    labels: frozenset[str]  # of the task
    types: frozenset[str]  # of events
    is_gold: bool


HEAD = "head of several words"
SAME_HEAD = "another relation of the same head"
ONE_WORD = "event type of one word"
SAME_WORD = "type is the mention's own words"
NO_TRIGGER = "event without a trigger"
VISUAL = "visual argument"
NO_SPAN = "end without a span"
NO_TEXT = "entity without a span"
NO_LABEL = "label that gold does not have"
REPEATED = "repeated at the same offsets"


@dataclass(frozen=True)
class Released:
    """The published scorer's result; scores are 0..1, rounded to four digits as in the published code."""

    task: str
    precision: float
    recall: float
    f1: float
    gold: int  # annotated items, including dropped ones
    dropped: dict[str, int]  # dropped gold items, by reason
    predicted: int  # predicted items, including dropped ones
    dropped_predictions: dict[str, int]  # by reason
    perfect: float  # the F1 of a prediction equal to gold
    perfect_found: int  # its true positives

    @property
    def dropped_share(self) -> float:
        """The share of gold items that are dropped, 0..1."""
        return sum(self.dropped.values()) / self.gold if self.gold else 0.0


def released_score(task: str, predictions: Sequence[Record], gold: Sequence[Record]) -> Released:
    """Score like the published scorer.

    Items are compared as strings: a prediction is a true positive while an equal gold item is left; a gold item is a
    false negative only if no prediction equals it, so a repeated mention needs to be predicted only once. ``none`` is a
    relation like any other. Predictions with labels outside the schema (the labels that gold uses or declares) are
    dropped. A mention whose words are its own type is dropped from gold, but counts as a false positive if predicted.
    """
    event_tasks = [name for name in ordered() if task_class(name).kind == "events"]
    types = frozenset().union(*(_labels(name, gold) for name in event_tasks))
    schema = _Schema(_labels(task, gold), types, is_gold=False)
    found = [list(_read_back(task, record, schema)) for record in predictions]
    repeated = [list(_read_back(task, record, schema)) for record in gold]
    wanted = [list(_read_back(task, record, schema._replace(is_gold=True))) for record in gold]
    precision, recall, f1 = _rounded(*_compare(found, wanted))
    perfect = _compare(repeated, wanted)
    return Released(
        task=task,
        precision=precision,
        recall=recall,
        f1=f1,
        gold=sum(map(len, wanted)),
        dropped=_reasons(wanted),
        predicted=sum(map(len, found)),
        dropped_predictions=_reasons(found),
        perfect=_rounded(*perfect)[2],
        perfect_found=perfect[0],
    )


def _read_back(task: str, record: Record, schema: _Schema) -> Iterator[_Read]:
    for item, reason in _READERS[task_class(task).kind](record, schema):
        yield (item, reason or (None if item[0] in schema.labels else NO_LABEL))


def _entities(record: Record, schema: _Schema) -> Iterator[_Read]:
    seen: set[object] = set()
    for entity in sorted(record.entities, key=lambda entity: entity.span or (-1, -1)):
        if entity.span is None:
            yield (entity.type,), NO_TEXT
        else:
            yield _spot(entity.type, entity.span, _words(entity.text), seen, schema)


def _relations(record: Record, schema: _Schema) -> Iterator[_Read]:
    heads: dict[object, list[Relation]] = {}
    written = [relation for relation in record.relations if relation.head and relation.tail]
    for relation in record.relations:
        if relation not in written:
            yield (relation.type,), NO_SPAN
    for relation in sorted(written, key=lambda item: (item.head, item.tail, item.type)):
        heads.setdefault(relation.head, []).append(relation)
    for relations in heads.values():
        for place, relation in enumerate(relations):
            name = NO_RELATION if is_no_relation(relation.type) else relation.type
            head, tail = (_words(record.surface(span or (0, 0))) for span in (relation.head, relation.tail))
            first, _, rest = head.partition(" ")
            if place:
                yield (name,), SAME_HEAD
            elif not rest:
                yield (name, head, tail), None
            elif first in schema.labels:  # parsed as the relation, and the rest of the head as the tail
                yield (first, first, rest), None
            else:
                yield (name,), HEAD


def _events(record: Record, schema: _Schema) -> Iterator[_Read]:
    seen: set[object] = set()
    for event in sorted(record.events, key=lambda event: event.trigger or (-1, -1)):
        if event.trigger is None:
            yield (event.type,), NO_TRIGGER
            continue
        item, reason = _spot(event.type, event.trigger, _words(record.surface(event.trigger)), seen, schema)
        has_arguments = any(argument.span is not None for argument in event.arguments)
        yield item, (None if reason == SAME_WORD and has_arguments else reason)


def _arguments(record: Record, schema: _Schema) -> Iterator[_Read]:
    for event in record.events:
        for argument in event.arguments:
            if argument.span is None:
                yield (argument.role,), VISUAL
            elif event.trigger is None:
                yield (argument.role,), NO_TRIGGER
            elif len(event.type.split()) == 1:
                yield (argument.role,), ONE_WORD
            elif event.type not in schema.types:
                yield (argument.role,), NO_LABEL
            else:
                yield (argument.role, event.type, _words(record.surface(argument.span))), None


_READERS = {"entities": _entities, "relations": _relations, "events": _events, "arguments": _arguments}


def _spot(label: str, span: object, words: str, seen: set[object], schema: _Schema) -> _Read:
    if schema.is_gold and (label, span) in seen:
        return (label,), REPEATED
    seen.add((label, span))
    own = schema.is_gold and label in (words, NO_RELATION)
    return (label, words), (SAME_WORD if own else None)


def _words(text: str) -> str:
    return " ".join(text.split())


def _compare(found: Sequence[list[_Read]], wanted: Sequence[list[_Read]]) -> tuple[int, int, int]:
    """Return true positives, false positives and false negatives as the published scorer counts them."""
    correct = false = missed = 0
    for predicted, gold in zip(found, wanted, strict=True):
        predictions, annotated = _kept(predicted), _kept(gold)
        matched = (Counter(predictions) & Counter(annotated)).total()
        correct += matched
        false += len(predictions) - matched
        missed += sum(item not in predictions for item in annotated)
    return correct, false, missed


def _rounded(correct: int, false: int, missed: int) -> tuple[float, float, float]:
    precision = round(correct / (correct + false), 4) if correct else 0.0
    recall = round(correct / (correct + missed), 4) if correct else 0.0
    f1 = round(2 * precision * recall / (precision + recall), 4) if correct else 0.0
    return precision, recall, f1


def _kept(items: Iterable[_Read]) -> list[Any]:
    return [item for item, reason in items if reason is None]


def _reasons(records: Iterable[Iterable[_Read]]) -> dict[str, int]:
    counts = Counter(reason for items in records for _, reason in items if reason is not None)
    return dict(sorted(counts.items()))


def has_released_scorer(task: str) -> bool:
    """Return whether the published scorer covers a task."""
    return task_class(task).kind in _READERS


def _labels(task: str, records: Collection[Record]) -> frozenset[str]:
    """Return the labels that records use or declare."""
    labels = {*used_labels(registry.build(task), records), *declared_labels(task, records)}
    return frozenset(NO_RELATION if is_no_relation(label) else label for label in labels)
