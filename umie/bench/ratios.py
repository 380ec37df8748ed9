"""Medians and quartiles of rounds, and ratios taken within each round, so that what slows a round hits both alike."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from statistics import median, quantiles

ROUNDS = 7  # a verdict on times needs so many, and so many are made by default


@dataclass(frozen=True)
class Spread:
    """The middle of some figures and their quartiles.

    Args:
        median: of all.
        low: the lower quartile.
        high: the upper quartile.
        rounds: how many figures there are.
    """

    median: float
    low: float
    high: float
    rounds: int = field(default=0, compare=False)

    def times(self, factor: float) -> Spread:
        """Return the spread in another unit."""
        return Spread(self.median * factor, self.low * factor, self.high * factor, self.rounds)

    @property
    def is_enough(self) -> bool:
        """Whether there are rounds enough for a verdict."""
        return self.rounds >= ROUNDS

    def apart(self, other: Spread) -> bool:
        """Say whether the two ranges between quartiles have nothing in common."""
        return self.low > other.high or other.low > self.high


def spread(values: Iterable[float]) -> Spread:
    """Return median and quartiles of at least one figure; of one, all three are it."""
    found = sorted(values)
    if len(found) == 1:
        return Spread(found[0], found[0], found[0], 1)
    low, _, high = quantiles(found, n=4, method="inclusive")
    return Spread(median(found), low, high, len(found))


def ratio(one: Sequence[float], other: Sequence[float]) -> Spread:
    """Return by how much ``one`` takes longer than ``other``, from the ratios within the rounds that both have."""
    return spread(a / b for a, b in zip(one, other, strict=False))  # an interrupted round is short of its last rows
