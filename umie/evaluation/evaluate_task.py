"""``evaluate``: generate, parse and score. Staged tasks use the predictions of their source task."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from umie.decoders.options import check_generation_options
from umie.errors import UmieError, check_choice, check_kind
from umie.evaluation.answers import Answer, OnBatch, answer_queries
from umie.evaluation.queries import QueryDataset
from umie.grounders.calls import without_found
from umie.model import UmieModel
from umie.processor import UmieProcessor
from umie.records import Record
from umie.scoring import Sheet, score_of_sheet, scores_by_combination, strict_sheet
from umie.scoring.grounding_errors import Groundings, diagnose
from umie.scoring.groundings import KINDS
from umie.tasks import Task, merged

SUBJECTS = ("predicted", "gold")


@dataclass(frozen=True)
class TaskResult:
    """The result of a model on one task.

    The scores are strict micro ``precision``, ``recall``, ``f1`` (0..1), the ``interval`` of the F1, counts, and the
    number of ``dropped`` items; see ``umie.scoring.strict_score``. Of a grounded task, they are those of the measure
    ``grounded``: places must be right, too; ``groundings`` has the total of each line about places, see
    ``umie.scoring.grounding_errors``, and what it is out of. ``by_combination`` has the F1 of each combination of text
    and media, if there are several.
    """

    scores: dict[str, Any]
    sheet: Sheet = field(compare=False)  # the counts of each record
    predictions: list[Record]  # the records with the predictions in place of their annotation
    gates: list[float]  # the mean gate of each query about a record with media, if the fusion has a gate
    is_oracle: bool = False  # whether the model got gold events: the score is not that of a complete system


class SourcePredictions:
    """The predictions of source tasks such as MED, kept so that each record is queried once.

    Args:
        tasks: the source tasks by name; by default, those of the processor.
    """

    def __init__(self, tasks: Mapping[str, Task[Any]] | None = None) -> None:
        self._tasks = dict(tasks or {})
        # by task and id() of the record, which is kept alive so that the id stays unique
        self._found: dict[tuple[str, int], tuple[Record, Record]] = {}

    def add(self, task: str, records: Iterable[Record], predictions: Iterable[Record]) -> None:
        """Store the predictions of a task."""
        for record, prediction in zip(records, predictions, strict=True):
            self._found[task, id(record)] = record, prediction

    def of(
        self, name: str, records: Sequence[Record], model: UmieModel, processor: UmieProcessor, **options: Any
    ) -> list[Record]:
        """Return the predictions of the task ``name`` for the records, generating those that are missing."""
        missing = [record for record in records if (name, id(record)) not in self._found]
        if missing:
            task = processor.task(self._tasks.get(name, name))
            _, predictions, _ = _answer(model, processor, missing, task, None, **options)
            self.add(name, missing, predictions)
        return [self._found[name, id(record)][1] for record in records]


@torch.no_grad()
def evaluate(
    model: UmieModel,
    processor: UmieProcessor,
    records: Sequence[Record],
    task: str | Task[Any],
    *,
    constrained: bool = False,
    events: str = "predicted",
    sources: SourcePredictions | None = None,
    batch_size: int = 64,
    on_batch: OnBatch | None = None,
    **generation_options: Any,
) -> TaskResult:
    """Generate the answer to every query of a task, greedily by default, and score strictly.

    Args:
        model: any variant; it is put into evaluation mode.
        processor: its processor.
        records: the records; those not annotated for the task are skipped.
        task: the name of a task, or a task object, e.g. with the label schema of one data set.
        constrained: decode under the task's grammar; see ``umie.constrained``.
        events: the events that a staged task such as MEAE is asked about: those that its source (MED) ``predicted``,
            as in the paper, or the ``gold`` events, an oracle. With ``predicted``, the arguments of events that were
            not found count as missed. Other tasks ignore it.
        sources: predictions of source tasks for these records; see SourcePredictions. The predictions of this task are
            added to it.
        batch_size: queries per call of ``generate``.
        on_batch: called after each batch.
        generation_options: options for ``generate`` of transformers, e.g. ``num_beams``.

    Raises:
        UmieError: no record is annotated for the task, or ``events`` is invalid.
    """
    check_choice("events", events, SUBJECTS)
    check_kind("task", task, str | Task, "pass the name of one task, or a task object")
    check_kind("records", records, Sequence, "pass a list of umie.Record objects")
    for record in records:
        check_kind("a record", record, Record, "pass umie.Record objects")
    check_generation_options(generation_options, "options of evaluate")
    model.eval()
    built = processor.task(task)
    records = processor.usable(record for record in records if record.annotated_for(built.name))
    if not any(built.queries(record) for record in records):
        raise UmieError(f"no record has a query for the task {built.name}")
    sources = SourcePredictions() if sources is None else sources
    options = {"constrained": constrained, "batch_size": batch_size, **generation_options}
    subjects = records  # the records that are asked about: with predicted events, their own answers are left out
    if built.is_staged and events == "predicted":
        found = sources.of(str(built.source), records, model, processor, **options)
        subjects = [
            built.with_subjects(without_found(one, record), record, from_source=True)[0]
            for one, record in zip(found, records, strict=True)
        ]
    dropped, predictions, gates = _answer(model, processor, subjects, built, on_batch, **options)
    sources.add(built.name, records, predictions)
    sheet = strict_sheet(built.name, predictions, records, built.measure)
    scores = {**score_of_sheet(sheet), "dropped": dropped}
    scores["by_combination"] = scores_by_combination(sheet, records, scores)
    if built.config.grounded and built.kind in KINDS:
        gold = [record.annotated for record in records]
        diagnoses = [diagnose(built.kind, *pair) for pair in zip(predictions, gold, strict=True)]
        scores["groundings"] = Groundings(range(len(records)), diagnoses).totals
    return TaskResult(scores, sheet, predictions, gates, is_oracle=built.is_staged and events == "gold")


def score_of_gold_calls(processor: UmieProcessor, records: Sequence[Record], task: Task[Any]) -> float:
    """Return the F1 of annotated answers whose calls are carried out: what a model without an error would reach."""
    records = processor.usable(record for record in records if record.annotated_for(task.name))
    asked = [(record, query) for record in records for query in task.queries(record)]
    answers = [task.parse(query.answer, record, query.target) for record, query in asked]
    found, read = processor.carry_out(answers, [query.answer for _, query in asked], records, task)
    predictions = [task.with_items(*pair) for pair in zip(found, merged(read, records, task), strict=True)]
    return float(score_of_sheet(strict_sheet(task.name, predictions, records, task.measure))["f1"])


def _answer(
    model: UmieModel,
    processor: UmieProcessor,
    records: Sequence[Record],
    task: Task[Any],
    on_batch: OnBatch | None,
    **options: Any,
) -> tuple[int, list[Record], list[float]]:
    """Ask a task about records; return the number of dropped items, the predictions, and gates about media."""
    # for a staged task: its source task is asked about every record, annotated for it or not
    asked = [replace(record, tasks=None) for record in records]
    answers: list[Answer] = []
    if any(task.queries(record) for record in asked):
        dataset = QueryDataset(asked, [task], processor)
        answers = answer_queries(
            model, processor, task, dataset.asked, dataset, dataset.lengths, on_batch=on_batch, **options
        )
    elif on_batch is not None:  # e.g. no event was found
        on_batch(1, 1)
    records, found = processor.carry_out([one.items for one in answers], [one.output for one in answers], records, task)
    items = processor.merge(found, records, task)
    predictions = [task.with_items(*pair) for pair in zip(records, items, strict=True)]
    gates = [one.gate for one in answers if one.gate is not None]
    return sum(found.dropped for found in items), predictions, gates
