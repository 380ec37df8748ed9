"""Micro-averaged precision, recall and F1 from per-record counts, and their sampling error."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable, Sequence
from collections.abc import Set as AbstractSet
from typing import NamedTuple


class Counts(NamedTuple):
    """Matches of one record: found and right, found, annotated."""

    true_positives: int
    predicted: int
    gold: int


def count_matches(predicted: AbstractSet[Hashable], gold: AbstractSet[Hashable]) -> Counts:
    """Count strict matches; a key that is predicted twice counts once."""
    return Counts(len(predicted & gold), len(predicted), len(gold))


def count_repeated(predicted: Iterable[Hashable], gold: Iterable[Hashable]) -> Counts:
    """Count matches of keys that may repeat: each predicted key answers one gold key that equals it."""
    found, wanted = Counter(predicted), Counter(gold)
    return Counts((found & wanted).total(), found.total(), wanted.total())


def f1_of(true_positives: float, predicted: float, gold: float) -> float:
    """Return 2 TP / (P + G); 0 where nothing is predicted and nothing annotated."""
    return 2 * true_positives / (predicted + gold) if predicted + gold else 0.0


def micro_f1(counts: Sequence[Counts]) -> dict[str, float]:
    """Return precision, recall, F1 (0..1) and the three totals over all records.

    Precision is 0 where nothing is predicted, recall is 0 where nothing is annotated.
    """
    true_positives, predicted, gold = (sum(column) for column in zip(*counts, strict=True)) if counts else (0, 0, 0)
    return {
        "precision": true_positives / predicted if predicted else 0.0,
        "recall": true_positives / gold if gold else 0.0,
        "f1": f1_of(true_positives, predicted, gold),
        "true_positives": true_positives,
        "predicted": predicted,
        "gold": gold,
    }


def f1_standard_error(counts: Sequence[Counts]) -> float:
    """Return the standard error of micro-F1 over the sampling of records.

    Delta method for the ratio 2 TP / (P + G) of sums over n independent records: with residuals
    e_i = 2 tp_i - F (p_i + g_i), the variance is n / (n - 1) * sum(e_i^2) / (sum(p_i + g_i))^2.
    """
    total = sum(count.predicted + count.gold for count in counts)
    if len(counts) < 2 or not total:
        return 0.0
    f1 = 2 * sum(count.true_positives for count in counts) / total
    squares = sum((2 * count.true_positives - f1 * (count.predicted + count.gold)) ** 2 for count in counts)
    return float((len(counts) / (len(counts) - 1) * squares) ** 0.5 / total)
