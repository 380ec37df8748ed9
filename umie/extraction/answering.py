"""Queries of one task about records that have been looked at: encoded, answered, and told where the input was cut."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from umie.evaluation.answers import answer
from umie.extraction.images import Visual
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
    """Return the answer to each query, in their order; see ``umie.evaluation.answers.answer``.

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
    answers = answer(
        model,
        processor,
        task,
        [(item.record, item.query) for item in asked],
        [{**text, **item.visual} for text, item in zip(texts, asked, strict=True)],
        [len(text["input_ids"]) for text in texts],
        constrained=constrained,
        batch_size=batch_size,
        **options,
    )
    return [Generated(one.output, one.gate, was_cut) for one, was_cut in zip(answers, cut, strict=True)]
