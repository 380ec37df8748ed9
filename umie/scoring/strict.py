"""The strict micro-F1 of a task: the one that training, grids, evaluations and reports print."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from umie.errors import UmieError
from umie.records import Record
from umie.scoring.measures import measures_of
from umie.scoring.resampling import bootstrap_sums, interval
from umie.scoring.score_sheet import Sheet, f1_of_sums


def strict_score(
    task: str, predictions: Sequence[Record], gold: Sequence[Record], *, resamples: int = 1000, seed: int = 0
) -> dict[str, Any]:
    """Return strict micro precision, recall and F1 (0..1) with the interval of the F1 and the totals behind them.

    It is the headline measure of the task, ``measures_of(task)[0]``: visual arguments match by IoU >= 0.5, ``none`` is
    no relation under any spelling.

    Args:
        task: a registered name.
        predictions: for each record what was predicted about it, in place of its annotation.
        gold: the records with their annotation.
        resamples: of the records, for the interval.
        seed: of the resamples.

    Returns:
        ``precision``, ``recall``, ``f1``, ``interval`` (a list of two numbers, 95 %), ``true_positives``,
        ``predicted``, ``gold``.

    Raises:
        UmieError: there is not one prediction for each record, or no such task.
    """
    if len(predictions) != len(gold):
        raise UmieError(f"{len(predictions)} predictions for {len(gold)} records: give one for each")
    measure = measures_of(task)[0]
    sheet = Sheet.of(list(map(measure.count, predictions, gold)))
    edges = [0.0, 0.0]
    if gold:
        sums = bootstrap_sums(sheet.counts.reshape(len(gold), -1), resamples, seed)
        edges = list(interval(f1_of_sums(sums, len(sheet.labels))))
    return {**sheet.score()._asdict(), "interval": edges}
