"""``answer_queries``: answer queries in batches of similar length."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from umie.evaluation.queries import QueryDataset
from umie.model import UmieModel
from umie.processor import UmieProcessor
from umie.records import MEDIA, Record
from umie.tasks import Items, Query, Task
from umie.types import key_of

OnBatch = Callable[[int, int], None]  # finished batches, all batches


class Answer(NamedTuple):
    """The items of an answer, its written form, and the gate if the fusion has one and the record media.

    A gate finer than one number per example is averaged.
    """

    items: Items[Any]
    output: str
    gate: float | None


@torch.no_grad()
def answer_queries(
    model: UmieModel,
    processor: UmieProcessor,
    task: Task[Any],
    asked: Sequence[tuple[Record, Query]],
    encoded: QueryDataset | Sequence[dict[str, Tensor]],
    lengths: Sequence[int],
    *,
    constrained: bool,
    batch_size: int,
    probabilities: bool = False,
    threshold: float | None = None,
    on_batch: OnBatch | None = None,
    **options: Any,
) -> list[Answer]:
    """Return the answer to each query, in order.

    Queries of similar length are batched together to reduce padding. Answers do not depend on the batch: padding is
    masked everywhere, and rows share no state.

    Args:
        model: the model, in evaluation mode.
        processor: its processor.
        task: the task of all queries.
        asked: the record and the query of each answer.
        encoded: the tensors of each query.
        lengths: the number of input tokens of each query.
        constrained: generate under the task's grammar.
        batch_size: queries per batch.
        probabilities: as in ``UmieProcessor.answers``.
        threshold: as in ``UmieProcessor.answers``.
        on_batch: called after each batch.
        options: for transformers' ``generate``.
    """
    order = sorted(range(len(asked)), key=lambda index: lengths[index])
    chunks = [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
    found: dict[int, Answer] = {}
    for done, chunk in enumerate(chunks, start=1):
        batch = processor.collate([encoded[index] for index in chunk])
        own = model.decoder.input_names
        inputs: dict[str, Any] = {name: value.to(model.device) for name, value in batch.items() if name not in own}
        fused, _, _ = model.fuse(**inputs)
        rows = [asked[index] for index in chunk]
        options |= {"constrained": constrained, "probabilities": probabilities, "threshold": threshold}
        answers = processor.answers(model.decoder, fused, batch, task, rows, **options)
        gates: list[float | None] = [None] * len(chunk)
        masks = [inputs[key] for medium in MEDIA if (key := key_of(medium, "visual_mask")) in inputs]
        if fused.gate is not None and masks:
            means = fused.gate.float().reshape(len(fused.gate), -1).mean(dim=1).tolist()
            has_media = torch.cat(masks, dim=1).any(dim=1).tolist()
            gates = [
                statistics.mean(means[row] for row in own) if has_media[own[0]] else None
                for own in processor.rows_of(batch, rows)
            ]
        for index, answer, gate in zip(chunk, answers, gates, strict=True):
            found[index] = Answer(*answer, gate)
        if on_batch is not None:
            on_batch(done, len(chunks))
    return [found[index] for index in range(len(asked))]
