"""evaluate: generate, parse, score; tasks that ask about what another task found follow that one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from umie.errors import UmieError, check_choice
from umie.evaluation.answers import OnBatch, answer_queries
from umie.evaluation.queries import QueryDataset
from umie.model import UmieModel
from umie.processor import UmieProcessor
from umie.records import Record
from umie.scoring import strict_score
from umie.tasks import Task

SUBJECTS = ("predicted", "gold")


@dataclass(frozen=True)
class TaskResult:
    """What a model reached on one task.

    Args:
        scores: strict micro ``precision``, ``recall``, ``f1`` (0..1), the ``interval`` of the F1, their counts, and
            ``dropped`` items; see ``umie.scoring.strict_score``.
        predictions: the records with what was predicted in place of their annotation.
        gates: the gate of each query about a record with an image, where the fusion has one; a gate that is
            finer than one number per example is averaged.
        is_oracle: whether the model was given gold events, so that the score is not that of a system by itself.
    """

    scores: dict[str, Any]
    predictions: list[Record]
    gates: list[float]
    is_oracle: bool = False


class SourcePredictions:
    """What the first of two stages found, kept so that each record is asked about once.

    Args:
        tasks: the tasks that a first stage is asked with, by name; others are the processor's own.
    """

    def __init__(self, tasks: Mapping[str, Task[Any]] | None = None) -> None:
        self._tasks = dict(tasks or {})
        self._found: dict[
            tuple[str, int], tuple[Record, Record]
        ] = {}  # the record is held, so that its id stays its own

    def add(self, task: str, records: Iterable[Record], predictions: Iterable[Record]) -> None:
        """Keep what a task found in some records."""
        for record, prediction in zip(records, predictions, strict=True):
            self._found[task, id(record)] = record, prediction

    def of(
        self, name: str, records: Sequence[Record], model: UmieModel, processor: UmieProcessor, **options: Any
    ) -> list[Record]:
        """Return what the task ``name`` finds in the records; those it was not asked about yet are asked about now."""
        lacking = [record for record in records if (name, id(record)) not in self._found]
        if lacking:
            task = processor.task(self._tasks.get(name, name))
            outputs, _ = _generate(model, processor, lacking, task, on_batch=None, **options)
            found = processor.parse(outputs, lacking, task)
            self.add(name, lacking, [task.with_items(*pair) for pair in zip(lacking, found, strict=True)])
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
    """Generate for every query of a task, greedily by default, and score strictly.

    Args:
        model: any variant; it is put into evaluation mode.
        processor: its processor.
        records: records that are annotated for the task; the others are skipped.
        task: the task's name, or a built task, e.g. with the label schema of one data set.
        constrained: decode under the task's grammar; see ``umie.constrained``.
        events: what a staged task such as MEAE is asked about: what its source (MED) ``predicted``, the paper's two
            stages, or the ``gold`` annotation, an oracle. An argument of an event that was not found counts as missed
            in the first case only. Other tasks ignore it.
        sources: what first stages have found in these records already; see SourcePredictions. A task that others ask
            about adds its predictions.
        batch_size: queries in one call of generate.
        on_batch: called after each batch.
        generation_options: for transformers' generate, e.g. ``num_beams``.

    Raises:
        UmieError: nothing is annotated for the task, or ``events`` is neither of the two.
    """
    check_choice("events", events, SUBJECTS)
    model.eval()
    built = processor.task(task)
    records = processor.usable(record for record in records if record.annotated_for(built.name))
    if not any(built.queries(record) for record in records):
        raise UmieError(f"no record gives a query for the task {built.name}")
    sources = SourcePredictions() if sources is None else sources
    options = {"constrained": constrained, "batch_size": batch_size, **generation_options}
    subjects = records
    if built.is_staged and events == "predicted":
        found = sources.of(str(built.source), records, model, processor, **options)
        subjects = [
            built.with_subjects(one, record, from_source=True)[0] for one, record in zip(found, records, strict=True)
        ]
    outputs, gates = _generate(model, processor, subjects, built, on_batch=on_batch, **options)
    items = processor.parse(outputs, subjects, built)
    predictions = [built.with_items(*pair) for pair in zip(subjects, items, strict=True)]
    sources.add(built.name, records, predictions)
    scores = strict_score(built.name, predictions, records)
    scores["dropped"] = sum(found.dropped for found in items)
    return TaskResult(scores, predictions, gates, is_oracle=built.is_staged and events == "gold")


def _generate(
    model: UmieModel,
    processor: UmieProcessor,
    records: Sequence[Record],
    task: Task[Any],
    *,
    constrained: bool,
    batch_size: int,
    on_batch: OnBatch | None,
    **generation_options: Any,
) -> tuple[list[str], list[float]]:
    """Return the answer to every query about the records, and the gates of those about an image."""
    asked = [replace(record, tasks=None) for record in records]  # also about records without annotation for the task
    if not any(task.queries(record) for record in asked):  # no event was found
        if on_batch is not None:
            on_batch(1, 1)
        return [], []
    dataset = QueryDataset(asked, [task], processor)
    answers = answer_queries(
        model,
        processor,
        task,
        dataset.asked,
        dataset,
        dataset.lengths,
        constrained=constrained,
        batch_size=batch_size,
        on_batch=on_batch,
        **generation_options,
    )
    return [one.output for one in answers], [one.gate for one in answers if one.gate is not None]
