"""Evaluation: generate, parse, score."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from umie.model import UmieModel
from umie.processor import UmieProcessor
from umie.query_dataset import QueryDataset
from umie.records import Record
from umie.tasks.metrics import f1_standard_error

OnBatch = Callable[[int, int], None]  # batches done, of how many


@dataclass(frozen=True)
class TaskResult:
    """What a model reached on one task.

    Args:
        scores: strict micro ``precision``, ``recall``, ``f1`` (0..1), their counts, ``standard_error`` of the
            F1 over records, and ``dropped`` items.
        predictions: the records with what was predicted in place of their annotation.
        gates: the gate of each query about a record with a picture, where the fusion has one; a gate that is
            finer than one number per example is averaged.
    """

    scores: dict[str, float]
    predictions: list[Record]
    gates: list[float]


@torch.no_grad()
def evaluate(
    model: UmieModel,
    processor: UmieProcessor,
    records: Sequence[Record],
    task: str,
    *,
    batch_size: int = 64,
    on_batch: OnBatch | None = None,
    **generation_options: Any,
) -> TaskResult:
    """Generate for every query of a task, greedily unless told otherwise, and score strictly.

    Args:
        model: any variant; it is put into evaluation mode.
        processor: its processor.
        records: records that are annotated for the task; the others are passed over.
        task: the task's name.
        batch_size: queries in one call of generate.
        on_batch: called after each batch.
        generation_options: for transformers' generate, e.g. ``num_beams``.
    """
    model.eval()
    built = processor.task(task)
    records = [record for record in records if record.annotated_for(task)]
    dataset = QueryDataset(records, [task], processor)
    order = sorted(range(len(dataset)), key=lambda index: dataset.lengths[index])
    chunks = [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
    outputs = [""] * len(dataset)
    gates: list[float] = []
    for done, chunk in enumerate(chunks, start=1):
        batch = processor.collate([dataset[index] for index in chunk])
        inputs: dict[str, Any] = {name: value.to(model.device) for name, value in batch.items() if name != "labels"}
        fused, _, _ = model.fuse(**inputs)
        generated = model.decoder.generate(
            fused, **{"max_new_tokens": processor.max_target_tokens, **generation_options}
        )
        for index, output in zip(chunk, processor.decode_text(generated), strict=True):
            outputs[index] = output
        if fused.gate is not None:
            gate = fused.gate.reshape(len(chunk), -1).mean(dim=1)
            gates += gate[inputs["visual_mask"].any(dim=1)].tolist()
        if on_batch is not None:
            on_batch(done, len(chunks))
    found = processor.parse(outputs, records, built)
    scores = built.score(found, records)
    scores["standard_error"] = f1_standard_error(built.counts(found, records))
    scores["dropped"] = sum(items.dropped for items in found)
    predictions = [built.with_items(record, items) for record, items in zip(records, found, strict=True)]
    return TaskResult(scores, predictions, gates)
