"""The uncertainty of a score: bootstrap intervals, and two paired tests between systems. Vectorized and seeded."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

LEVEL = 0.95
_CHUNK = 2_000_000  # draws held in memory at a time
_ROUNDING = 1e-12  # smaller differences come from the order of summation


def bootstrap_sums(counts: NDArray[np.float64], resamples: int, seed: int) -> NDArray[np.float64]:
    """Return the sums of counts over resamples of the records, drawn with replacement.

    The draws depend only on the number of records, ``resamples`` and ``seed``, so two systems are resampled alike,
    record by record. ``counts`` is [records, ...], the result [resamples, ...].
    """
    generator = np.random.default_rng(seed)
    num_records = len(counts)
    parts = []
    for size in _chunks(resamples, num_records):
        drawn = generator.integers(0, num_records, (size, num_records))
        drawn += np.arange(size)[:, None] * num_records
        weights = np.bincount(drawn.ravel(), minlength=size * num_records).reshape(size, num_records)
        parts.append(weights.astype(np.float64) @ counts.reshape(num_records, -1))
    return np.concatenate(parts).reshape(resamples, *counts.shape[1:])


def interval(values: NDArray[np.float64]) -> tuple[float, float]:
    """Return the percentile interval of 95% of the values, ignoring NaN, the value of a resample without items."""
    defined = values[~np.isnan(values)]
    if not len(defined):
        return 0.0, 0.0
    low, high = np.percentile(defined, [50 * (1 - LEVEL), 50 * (1 + LEVEL)])
    return float(low), float(high)


def bootstrap_p(differences: NDArray[np.float64]) -> float:
    """Return the two-sided p of a paired bootstrap: twice the smaller share of differences on one side of 0.

    A difference of 0 counts on both sides, NaN on neither; 1 is added to both counts and to the number of resamples,
    so that p is never 0.
    """
    differences = differences[~np.isnan(differences)]
    below = int((differences <= _ROUNDING).sum())
    above = int((differences >= -_ROUNDING).sum())
    return min(1.0, 2 * (min(below, above) + 1) / (len(differences) + 1))


def swapped_sums(
    first: NDArray[np.float64], second: NDArray[np.float64], resamples: int, seed: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the sums of two systems' counts after swapping their answers on a random half of the records.

    Both counts are [records, ...], both results [resamples, ...]. Source: approximate randomization, Noreen 1989; Yeh
    2000.
    """
    generator = np.random.default_rng(seed)
    difference = (second - first).reshape(len(first), -1)
    parts = [
        generator.integers(0, 2, (size, len(first)), dtype=np.int8).astype(np.float64) @ difference
        for size in _chunks(resamples, len(first))
    ]
    moved = np.concatenate(parts).reshape(resamples, *first.shape[1:])
    return first.sum(axis=0) + moved, second.sum(axis=0) - moved


def randomization_p(observed: float, differences: NDArray[np.float64]) -> float:
    """Return the share of swaps whose difference is at least as large as the observed one in absolute value.

    1 is added to the count and to the number of swaps, so that p is never 0.
    """
    return (int((np.abs(differences) >= abs(observed) - _ROUNDING).sum()) + 1) / (len(differences) + 1)


def _chunks(resamples: int, num_records: int) -> Iterator[int]:
    size = max(1, _CHUNK // num_records)
    for start in range(0, resamples, size):
        yield min(size, resamples - start)
