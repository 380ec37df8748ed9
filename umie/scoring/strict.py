"""The strict micro-F1 of a task, used by training, grids, evaluations and reports."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from umie.errors import UmieError
from umie.records import Record
from umie.scoring.groups import COMBINATIONS
from umie.scoring.measures import measures_of
from umie.scoring.resampling import bootstrap_sums, interval
from umie.scoring.score_sheet import Sheet, f1_of_sums


def strict_score(
    task: str, predictions: Sequence[Record], gold: Sequence[Record], *, resamples: int = 1000, seed: int = 0
) -> dict[str, Any]:
    """Return strict micro precision, recall and F1 (0..1), the interval of the F1, and the totals.

    This is the main measure of the task, ``measures_of(task)[0]``: arguments without a span match at IoU >= 0.5, and
    ``none`` is not counted as a relation in any spelling.

    Args:
        task: a registered task.
        predictions: the records with predicted items instead of their annotation, in the order of ``gold``.
        gold: the annotated records; those with proposed places are compared by their ``gold``.
        resamples: the number of resamples for the interval.
        seed: their seed.

    Returns:
        ``precision``, ``recall``, ``f1``, ``interval`` (a list of two numbers, 95%), ``true_positives``,
        ``predicted``, ``gold``.

    Raises:
        UmieError: the task is unknown, or the number of predictions differs from the number of records.
    """
    return score_of_sheet(strict_sheet(task, predictions, gold), resamples=resamples, seed=seed)


def strict_sheet(task: str, predictions: Sequence[Record], gold: Sequence[Record], measure: str | None = None) -> Sheet:
    """Return the counts of each record; ``measure`` is not the main one. See ``strict_score`` for the rest.

    A task of its own kind has one measure: its items are equal, with their places.
    """
    if len(predictions) != len(gold):
        raise UmieError(f"{len(predictions)} predictions for {len(gold)} records: pass one for each")
    measures = {one.name: one for one in measures_of(task)}
    main = next(iter(measures))
    chosen = measures[main if measure is None or len(measures) == 1 else measure]
    return Sheet.of([chosen.count(found, record.annotated) for found, record in zip(predictions, gold, strict=True)])


def scores_by_combination(
    sheet: Sheet, gold: Sequence[Record], whole: Mapping[str, Any] | None = None
) -> dict[str, dict[str, Any]]:
    """Return ``f1`` and ``interval`` of the records of each combination of text and media, e.g. ``T+I``.

    ``whole`` has those of all records, if they are known: a single combination is not resampled again.
    """
    rows: dict[str, list[int]] = {}
    for row, record in enumerate(gold):
        rows.setdefault(record.combination, []).append(row)
    parts = {
        name: whole
        if whole is not None and len(rows) == 1
        else score_of_sheet(Sheet(sheet.labels, sheet.counts[rows[name]]))
        for name in COMBINATIONS
        if name in rows
    }
    return {name: {key: scores[key] for key in ("f1", "interval")} for name, scores in parts.items()}


def score_of_sheet(sheet: Sheet, *, resamples: int = 1000, seed: int = 0) -> dict[str, Any]:
    """Return the values of ``strict_score`` from the counts of the records."""
    edges = [0.0, 0.0]
    if len(sheet.counts):
        edges = list(interval(f1_of_sums(bootstrap_sums(sheet.counts, resamples, seed))))
    return {**sheet.score()._asdict(), "interval": edges}
