"""Generation: queries of one task to answers, batched by length and given back in the order of asking."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from umie.constrained import Constraint
from umie.extraction.looking import Visual
from umie.model import UmieModel
from umie.processor import UmieProcessor
from umie.records import Record
from umie.tasks import Query, Task


@dataclass(frozen=True)
class Asked:
    """One query about a record, with what the model sees beside the text."""

    record: Record
    query: Query
    visual: Visual


@dataclass(frozen=True)
class Generated:
    """The string that was generated, the gate where there is one, and whether the input was cut."""

    output: str
    gate: float | None
    is_truncated: bool


@torch.no_grad()
def generate(
    model: UmieModel,
    processor: UmieProcessor,
    task: Task[Any],
    asked: Sequence[Asked],
    *,
    constrained: bool,
    batch_size: int,
    **options: Any,
) -> list[Generated]:
    """Return the answer to each query, in their order.

    Queries of like length go together, so that little is computed for padding. An answer does not depend on its
    neighbours: padding is masked everywhere, and nothing is shared between rows.

    Args:
        model: in evaluation mode.
        processor: its processor.
        task: the task of all queries.
        asked: the queries.
        constrained: decode under the task's grammar.
        batch_size: queries at once.
        options: for transformers' generate.
    """
    texts, cut = [], []
    for item in asked:
        before = processor.counts["truncated_inputs"]
        texts.append(processor.encode_query(item.record, item.query))
        cut.append(processor.counts["truncated_inputs"] > before)
    order = sorted(range(len(asked)), key=lambda index: len(texts[index]["input_ids"]))
    limit = {"max_new_tokens": processor.max_target_tokens, **options}
    found: dict[int, Generated] = {}
    for start in range(0, len(order), batch_size):
        chunk = order[start : start + batch_size]
        batch = processor.collate([{**texts[index], **asked[index].visual} for index in chunk])
        inputs: dict[str, Any] = {name: value.to(model.device) for name, value in batch.items() if name != "labels"}
        fused, _, _ = model.fuse(**inputs)
        constraint = None
        if constrained:
            rows = [(asked[index].record, asked[index].query) for index in chunk]
            constraint = Constraint(processor.tokenizer, task, rows, limit["max_new_tokens"])
        tokens = model.decoder.generate(fused, constraint, **limit)
        outputs = processor.decode_text(tokens, task) if constraint is None else constraint.read(tokens)
        gates: list[float | None] = [None] * len(chunk)
        if fused.gate is not None and "visual_mask" in inputs:
            means = fused.gate.float().reshape(len(chunk), -1).mean(dim=1).tolist()
            pictured = inputs["visual_mask"].any(dim=1).tolist()
            gates = [mean if is_pictured else None for mean, is_pictured in zip(means, pictured, strict=True)]
        for index, output, gate in zip(chunk, outputs, gates, strict=True):
            found[index] = Generated(output, gate, cut[index])
    return [found[index] for index in range(len(asked))]
