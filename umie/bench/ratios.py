"""Medians and quartiles over rounds, and ratios taken within each round so that a slow round cancels out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from statistics import median, quantiles

ROUNDS = 7  # default, and the minimum for a verdict on times


@dataclass(frozen=True)
class Spread:
    """The median, the lower and the upper quartile of the values of some rounds."""

    median: float
    low: float
    high: float
    rounds: int = field(default=0, compare=False)

    def times(self, factor: float) -> Spread:
        """Return the spread in another unit."""
        return Spread(self.median * factor, self.low * factor, self.high * factor, self.rounds)

    @property
    def is_enough(self) -> bool:
        """Whether there are enough rounds for a verdict."""
        return self.rounds >= ROUNDS

    def is_apart(self, other: Spread) -> bool:
        """Return whether the two interquartile ranges do not overlap."""
        return self.low > other.high or other.low > self.high

    def __str__(self) -> str:
        return f"{digits(self.median)} ({digits(self.low)}-{digits(self.high)})"


def spread(values: Iterable[float]) -> Spread:
    """Return the median and quartiles of at least one value."""
    found = sorted(values)
    if len(found) == 1:
        return Spread(found[0], found[0], found[0], 1)
    low, _, high = quantiles(found, n=4, method="inclusive")
    return Spread(median(found), low, high, len(found))


def ratio(one: Sequence[float], other: Sequence[float]) -> Spread:
    """Return the ratios of ``one`` to ``other`` within the rounds that both completed."""
    return spread(a / b for a, b in zip(one, other, strict=False))  # an interrupted round is missing its last rows


def digits(value: float) -> str:
    """Return a number with three significant digits, or all digits before the point."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def shown(found: Spread | None) -> str:
    """Return a median with its quartiles, or ``-`` for None."""
    return "-" if found is None else str(found)


def mebibytes(num_bytes: int | None) -> str:
    """Return a size in MiB, or ``-`` for None."""
    return "-" if num_bytes is None else digits(num_bytes / 2**20)
