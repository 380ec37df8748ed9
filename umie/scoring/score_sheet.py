"""Counts of all records, and precision, recall and F1 from their sums."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from umie.scoring.counts import Tally

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Score(NamedTuple):
    """Precision, recall and F1 (0..1), and the totals."""

    precision: float
    recall: float
    f1: float
    true_positives: int
    predicted: int
    gold: int


@dataclass(frozen=True)
class Sheet:
    """The counts of a measure over records."""

    labels: tuple[str, ...]  # in alphabetical order; ("",) for a measure without labels
    counts: NDArray[np.float64]  # [records, labels, 3]: true positives, predicted, gold

    @classmethod
    def of(cls, tallies: Sequence[Tally]) -> Sheet:
        """Lay out the tallies of the records."""
        labels = tuple(sorted({label for tally in tallies for label in tally})) or ("",)
        place = {label: index for index, label in enumerate(labels)}
        counts = np.zeros((len(tallies), len(labels), 3))
        for row, tally in zip(counts, tallies, strict=True):
            for label, values in tally.items():
                row[place[label]] = values
        return cls(labels, counts)

    @property
    def has_labels(self) -> bool:
        """Whether the measure distinguishes labels."""
        return self.labels != ("",)

    @property
    def is_empty(self) -> bool:
        """Whether there are neither predicted nor annotated items."""
        return not self.counts.any()

    def score(self, average: str = "micro") -> Score:
        """Return the score over all records; ``average`` is ``micro`` or ``macro``."""
        sums = self.counts.sum(axis=0)
        precision, recall, f1 = ratios(sums, average).tolist()
        true_positives, predicted, gold = sums.sum(axis=0).astype(int).tolist()
        return Score(precision, recall, f1, true_positives, predicted, gold)

    def by_label(self) -> dict[str, Score]:
        """Return the score of each label."""
        return {
            label: Sheet((label,), self.counts[:, index : index + 1]).score() for index, label in enumerate(self.labels)
        }


def ratios(sums: NDArray[np.float64], average: str) -> NDArray[np.float64]:
    """Return precision, recall and F1 from sums of counts.

    Micro sums over labels first. Macro is the mean over the labels that occur in gold or predictions, as in seqeval
    and scikit-learn: a label that is only predicted counts with F1 0.

    Args:
        sums: [..., labels, 3]: true positives, predicted, gold.
        average: ``micro`` or ``macro``.

    Returns:
        [3, ...]; 0 if the denominator is 0.
    """
    if average == "micro":
        return _ratios(sums.sum(axis=-2))
    present = (sums[..., 1] + sums[..., 2]) > 0
    return _divide((_ratios(sums) * present).sum(axis=-1), present.sum(axis=-1))


def f1_of_sums(sums: NDArray[np.float64], average: str = "micro") -> NDArray[np.float64]:
    """Return the F1 of each row of summed counts [rows, labels, 3]; NaN if nothing is predicted and annotated."""
    values: NDArray[np.float64] = np.where(sums.any(axis=(1, 2)), ratios(sums, average)[2], np.nan)
    return values


def _ratios(sums: NDArray[np.float64]) -> NDArray[np.float64]:
    correct, predicted, gold = np.moveaxis(sums, -1, 0)
    return np.stack([_divide(correct, predicted), _divide(correct, gold), _divide(2 * correct, predicted + gold)])


def _divide(numerator: NDArray[np.float64], denominator: NDArray[np.float64]) -> NDArray[np.float64]:
    safe = np.where(denominator == 0, 1, denominator)
    return np.where(denominator == 0, 0.0, numerator / safe)
