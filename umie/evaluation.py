"""Evaluation: generate, parse, score."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from umie.answers import OnBatch, answer
from umie.errors import UmieError, check_choice
from umie.model import UmieModel
from umie.processor import UmieProcessor
from umie.query_dataset import QueryDataset
from umie.records import Record
from umie.tasks import Task
from umie.tasks.meae import EVENTS
from umie.tasks.metrics import f1_standard_error


@dataclass(frozen=True)
class TaskResult:
    """What a model reached on one task.

    Args:
        scores: strict micro ``precision``, ``recall``, ``f1`` (0..1), their counts, ``standard_error`` of the
            F1 over records, and ``dropped`` items.
        predictions: the records with what was predicted in place of their annotation.
        gates: the gate of each query about a record with a picture, where the fusion has one; a gate that is
            finer than one number per example is averaged.
        is_oracle: whether the model was told gold events, so that the score is none of a system alone.
    """

    scores: dict[str, float]
    predictions: list[Record]
    gates: list[float]
    is_oracle: bool = False


@torch.no_grad()
def evaluate(
    model: UmieModel,
    processor: UmieProcessor,
    records: Sequence[Record],
    task: str | Task[Any],
    *,
    constrained: bool = False,
    med: Task[Any] | None = None,
    events: str = "predicted",
    detected: Sequence[Record] | None = None,
    batch_size: int = 64,
    on_batch: OnBatch | None = None,
    **generation_options: Any,
) -> TaskResult:
    """Generate for every query of a task, greedily unless told otherwise, and score strictly.

    Args:
        model: any variant; it is put into evaluation mode.
        processor: its processor.
        records: records that are annotated for the task; the others are passed over.
        task: the task's name, or a built task, e.g. with the label schema of one data set.
        constrained: decode under the task's grammar; see ``umie.constrained``.
        events: which events MEAE is asked about: ``predicted`` by MED, the two stages of the paper, or ``gold``,
            which is an oracle: an argument of an event that was not found counts as missed in the first only.
            Without effect on the other tasks.
        med: the task MED that MEAE's first stage asks with, where it is not the processor's own.
        detected: the predictions of MED about the same records, where it ran before; else it runs first.
        batch_size: queries in one call of generate.
        on_batch: called after each batch.
        generation_options: for transformers' generate, e.g. ``num_beams``.

    Raises:
        UmieError: nothing is annotated for the task, ``events`` is neither of the two, or ``detected`` is about
            other records.
    """
    check_choice("events", events, EVENTS)
    model.eval()
    built = processor.task(task)
    records = processor.usable(record for record in records if record.annotated_for(built.name))
    if not any(built.queries(record) for record in records):
        raise UmieError(f"no record gives a query for the task {built.name}")
    asked_about = records
    is_oracle = built.name == "meae" and events == "gold"
    options = {"constrained": constrained, "batch_size": batch_size, **generation_options}
    if built.name == "meae" and events == "predicted":
        if detected is None:
            first = processor.task("med" if med is None else med)
            outputs, _ = _generate(model, processor, records, first, on_batch=None, **options)
            found = processor.parse(outputs, records, first)
            detected = [first.with_items(record, items) for record, items in zip(records, found, strict=True)]
        else:
            detected = processor.usable(record for record in detected if record.annotated_for(built.name))
            if [record.text for record in detected] != [record.text for record in records]:
                raise UmieError("detected is about other records: give what MED predicted, in the order of the records")
        asked_about = detected
    outputs, gates = _generate(model, processor, asked_about, built, on_batch=on_batch, **options)
    found = processor.parse(outputs, asked_about, built)
    scores = built.score(found, records)
    scores["standard_error"] = f1_standard_error(built.counts(found, records))
    scores["dropped"] = sum(items.dropped for items in found)
    predictions = [built.with_items(record, items) for record, items in zip(asked_about, found, strict=True)]
    return TaskResult(scores, predictions, gates, is_oracle)


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
    """Return the answer to every query about the records, and the gates of those about a picture."""
    if not any(task.queries(record) for record in records):  # no event was found
        if on_batch is not None:
            on_batch(1, 1)
        return [], []
    dataset = QueryDataset(records, [task], processor)
    answers = answer(
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
