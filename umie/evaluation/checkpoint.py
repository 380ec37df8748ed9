"""evaluate_checkpoint: answers, scores, gates and counts of a checkpoint on annotated records."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from umie.errors import check_choice
from umie.evaluation.evaluate_task import SourcePredictions, evaluate
from umie.evaluation.schema import TaskSelection
from umie.model import UmieModel
from umie.processor import UmieProcessor
from umie.records import Record
from umie.scoring import Prediction, Report, score_predictions

DECODINGS = ("constrained", "free")
OnBatch = Callable[[str, str, int, int], None]  # decoding, task, finished batches, all batches


@dataclass
class DecodingResult:
    """The result of a checkpoint with one decoding, ``constrained`` or ``free``."""

    decoding: str
    report: Report = field(default_factory=lambda: Report([], [], 0, 0))  # scores, intervals, labels, baselines
    predictions: dict[str, list[Record]] = field(default_factory=dict)  # the records annotated for each task
    gates: dict[str, list[float]] = field(default_factory=dict)  # of queries about records with media, by task
    counts: dict[str, Counter[str]] = field(default_factory=dict)  # truncated inputs, dropped items, ... by task
    unreadable: dict[str, str] = field(default_factory=dict)  # why images cannot be read, by name
    seconds: dict[str, float] = field(default_factory=dict)  # the time of generation, by task
    oracles: list[str] = field(default_factory=list)  # the tasks whose queries were about gold events


def evaluate_checkpoint(
    model: UmieModel,
    processor: UmieProcessor,
    records: Sequence[Record],
    selection: TaskSelection,
    *,
    decodings: Sequence[str] = ("constrained",),
    events: str = "predicted",
    train: Sequence[Record] | None = None,
    group_by: str = "combination",
    resamples: int = 1000,
    seed: int = 0,
    batch_size: int = 64,
    on_batch: OnBatch | None = None,
    **generation_options: Any,
) -> list[DecodingResult]:
    """Generate answers with each decoding and score them; of two decodings, the first is compared with the second.

    Args:
        model: any variant.
        processor: its processor.
        records: the annotated records, without those that the processor skips.
        selection: the tasks; see ``choose_tasks``.
        decodings: ``constrained``, ``free`` or both.
        events: the events that MEAE is asked about, ``predicted`` or ``gold``; see ``umie.evaluation.evaluate``.
        train: training records, for the baselines.
        group_by: the groups of records that are also scored by themselves; see ``umie.scoring.groups``.
        resamples: the number of resamples for intervals and tests.
        seed: their seed.
        batch_size: queries per batch.
        on_batch: called after each batch.
        generation_options: for transformers' ``generate``.
    """
    for decoding in decodings:
        check_choice("decoding", decoding, DECODINGS)
    results = []
    for decoding in decodings:
        result = DecodingResult(decoding)
        sources = SourcePredictions(selection.tasks)
        for name in selection.scored:
            started = time.perf_counter()
            own = [record for record in records if record.annotated_for(name)]
            options = {"constrained": decoding == "constrained", "batch_size": batch_size, **generation_options}
            task = selection.tasks[name]
            if task.is_staged and events == "predicted":  # so that the counts below are only the task's own
                sources.of(str(task.source), own, model, processor, **options)
            processor.reset_counts()

            def report_batch(done: int, total: int, name: str = name, decoding: str = decoding) -> None:
                if on_batch is not None:
                    on_batch(decoding, name, done, total)

            found = evaluate(
                model, processor, own, task, events=events, sources=sources, on_batch=report_batch, **options
            )
            result.predictions[name] = found.predictions
            result.gates[name] = found.gates
            result.counts[name] = Counter(processor.counts)
            result.unreadable |= processor.unreadable
            result.seconds[name] = time.perf_counter() - started
            result.oracles += [name] if found.is_oracle else []
        results.append(result)
    for result in results:
        other = results[1] if result is results[0] and len(results) == 2 else None
        reports = []
        for name in selection.scored:
            own = [record for record in records if record.annotated_for(name)]
            predictions, others = (
                None if side is None else [Prediction(found) for found in side.predictions[name]]
                for side in (result, other)
            )
            reports.append(
                score_predictions(
                    own,
                    predictions or [],
                    tasks=[name],
                    group_by=group_by,
                    main={name: selection.tasks[name].measure},
                    other=others,
                    train=train,
                    resamples=resamples,
                    seed=seed,
                )
            )
        result.report = Report(
            [line for report in reports for line in report.lines],
            [line for report in reports for line in report.released],
            resamples,
            seed,
            {name: reason for report in reports for name, reason in report.left_out.items()},
            {name: found for report in reports for name, found in report.groundings.items()},
            group_by,
        )
    return results
