"""The uncertainty of differences in F1 that were measured with several seeds on the same records.

Two things are left to chance: the seed (weights, batches, dropout) and the records of the split. The variance over
seeds is estimated from the seeds, that over records by a paired bootstrap, and both are added. A critical value is the
mean of Student's t and the normal one, weighted by the shares of the two variances (Cochran and Cox 1957, Experimental
Designs), which holds the level whatever the shares are. In simulations with three seeds, equal systems are found
different in at most 5% of grids; with the degrees of freedom of Welch and Satterthwaite in up to 7%, and with a
hierarchical bootstrap over seeds and records in up to 23%, because three values resampled show two thirds of their
variance, and its quantiles are not Student's (``tests/experiments/test_statistics.py``).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Values = NDArray[np.float64]

BySeed = Mapping[int, Mapping[str, Any]]
"""Counts of correct, predicted and annotated items, by seed and scored task, for each record."""

ALPHA = 0.05
POWER = 0.8
RESAMPLES = 1000
_SMALLEST_P = 1e-100
MIN_SEEDS = 3  # with fewer, an interval over seeds is too wide to show: with two, t is 12.7


@dataclass(frozen=True)
class Comparison:
    """The difference in F1 between two variants, or two groups of variants, over the seeds and records that both have.

    The size of the effect is the difference itself, in points of F1, with its interval. It is not divided by the
    deviation over seeds (Cohen's d): F1 has a meaning of its own, and a deviation of three seeds is hardly known.
    Source: Baguley 2009, Standardized or simple effect size: What should be reported?
    """

    variant: str
    against: str
    task: str  # the title of the scored task, or ``mean``
    num_seeds: int
    difference: float  # the mean over seeds, -1..1
    error: float  # its standard error; NaN if nothing is known about chance, e.g. with one record
    share: float  # of the seeds in the variance, 0..1; the rest is that of the records
    family: int = 1  # the number of comparisons that are made together
    adjusted: float = math.nan  # p, corrected for their number (Holm)
    words: tuple[str, str] = ("better", "worse")  # for a positive and a negative difference

    @property
    def p(self) -> float:
        """The two-sided p without correction: how often chance alone gives a difference of this size."""
        if math.isnan(self.error) or not self.error:
            return 1.0
        return p_value(abs(self.difference) / self.error, self.share, self.num_seeds)

    @property
    def interval(self) -> tuple[float, float] | None:
        """The 95% interval, not corrected for the number of comparisons; None for fewer than three seeds."""
        if math.isnan(self.error) or self.num_seeds < MIN_SEEDS:
            return None
        half_width = float(critical_value(ALPHA, self.share, self.num_seeds)) * self.error
        return self.difference - half_width, self.difference + half_width

    @property
    def smallest(self) -> float:
        """The smallest difference that this grid, with this number of comparisons, would find in 80% of repetitions."""
        return self.error and self.error * detectable(ALPHA / self.family, self.share, self.num_seeds)

    @property
    def is_significant(self) -> bool:
        """Whether the two sides differ, after correction for the number of comparisons."""
        return self.adjusted < ALPHA

    @property
    def verdict(self) -> str:
        """What the result supports, in words."""
        if self.is_significant:
            return self.words[self.difference < 0] + (", of these two models" if self.num_seeds == 1 else "")
        if self.smallest == 0:
            return "equal"
        if math.isnan(self.error):
            return "not distinguishable: too few records"
        seeds = f"{self.num_seeds} seed{'s' if self.num_seeds > 1 else ''}"
        if self.smallest >= 1:
            return f"not distinguishable ({seeds}, too few for this grid to see any difference)"
        seen = f"{100 * self.smallest:.1f} points"
        return f"not distinguishable ({seeds}, smallest difference this grid could have seen: {seen})"


@dataclass(frozen=True)
class Scores:
    """The F1 of one cell on a scored task."""

    num_records: tuple[int, ...]  # of each task, if it is a mean over tasks
    values: Values  # [1 + RESAMPLES]: on all records, then on resamples of them


ByVariant = Mapping[str, Mapping[int, Scores]]
"""Scores by variant and seed."""


def scores_of(counts: Mapping[str, BySeed], keys: Sequence[str]) -> ByVariant:
    """Return the mean F1 over scored tasks; cells that lack the counts of one are left out."""
    import numpy as np

    from umie.scoring.resampling import bootstrap_sums
    from umie.scoring.score_sheet import ratios

    found: dict[tuple[str, int], list[Scores]] = {}
    for key in keys:
        by_size: dict[int, dict[tuple[str, int], Any]] = {}
        for variant, by_seed in counts.items():
            for seed, tasks in by_seed.items():
                sheet = tasks.get(key, ())
                if len(sheet) and set(map(len, sheet)) == {3}:
                    by_size.setdefault(len(sheet), {})[variant, seed] = sheet
        for size, sheets in by_size.items():
            stacked = np.asarray(list(sheets.values()), dtype=np.float64).transpose(1, 0, 2)  # [records, cells, 3]
            sums = np.concatenate([stacked.sum(axis=0)[None], bootstrap_sums(stacked, RESAMPLES, 0)])
            f1 = ratios(sums[..., None, :], "micro")[2]  # [1 + RESAMPLES, cells]
            for place, name in enumerate(sheets):
                found.setdefault(name, []).append(Scores((size,), f1[:, place]))
    by_variant: dict[str, dict[int, Scores]] = {}
    for (variant, seed), own in found.items():
        if len(own) == len(keys):
            sizes = tuple(size for one in own for size in one.num_records)
            by_variant.setdefault(variant, {})[seed] = Scores(sizes, np.mean([one.values for one in own], axis=0))
    return by_variant


def contrast(
    scores: ByVariant,
    weights: Mapping[str, float],
    names: tuple[str, str, str],
    words: tuple[str, str] = ("better", "worse"),
) -> Iterator[Comparison]:
    """Yield the weighted sum of the F1 of variants, if there is a seed that all have on the same number of records.

    Args:
        scores: of all variants, from ``scores_of``.
        weights: by variant; their sum is 0.
        names: the two sides and the task, for the table.
        words: for a positive and a negative sum.
    """
    import numpy as np

    sides = [scores.get(variant, {}) for variant in weights]
    rows = []
    for seed in sides[0]:
        own = [side[seed] for side in sides if seed in side]
        if len(own) == len(sides) and len({one.num_records for one in own}) == 1:
            rows.append(np.tensordot(list(weights.values()), [one.values for one in own], 1))
    if rows:
        table = np.asarray(rows)
        values, draws = table[:, 0], table[:, 1:]
        error, share = map(float, standard_error(values, draws))
        mean = float(values.mean())
        if mean and not draws.mean(axis=0).std():  # e.g. one record: nothing is known about chance
            error = math.nan
        yield Comparison(*names, len(rows), mean, error, share, words=words)


def standard_error(values: Values, draws: Values) -> tuple[Values, Values]:
    """Return the standard error of the mean over seeds, and the share of the seeds in its variance.

    Two seeds say so little about their variance that the share is 1, which is the most careful.

    Args:
        values: the differences on all records [seeds, ...].
        draws: the differences on resamples of the records, the same ones for all seeds [seeds, resamples, ...].
    """
    import numpy as np

    of_records = draws.mean(axis=0).var(axis=0)
    of_seeds = values.var(axis=0, ddof=1) / len(values) if len(values) > 1 else np.zeros_like(of_records)
    variance = of_seeds + of_records
    share = of_seeds / np.where(variance > 0, variance, 1)
    return np.sqrt(variance), np.ones_like(share) if 1 < len(values) < MIN_SEEDS else share


def critical_value(level: Any, share: Any, num_seeds: int) -> Any:
    """Return the absolute difference, in standard errors, from which a two-sided test of a level rejects."""
    from scipy import special

    return -share * special.stdtrit(max(1, num_seeds - 1), level / 2) - (1 - share) * special.ndtri(level / 2)


def p_value(size: float, share: float, num_seeds: int) -> float:
    """Return the lowest level at which a difference of a size, in standard errors, is rejected."""
    from scipy import optimize

    if size >= critical_value(_SMALLEST_P, share, num_seeds):
        return 0.0
    found = optimize.brentq(lambda x: critical_value(10**x, share, num_seeds) - size, math.log10(_SMALLEST_P), 0)
    return float(10**found)


def detectable(level: float, share: float, num_seeds: int) -> float:
    """Return the difference, in standard errors, that a two-sided test of a level finds with a probability of 80%."""
    from scipy import special

    normal = float(special.ndtri(POWER) - special.ndtri(level / 2))
    return share * _detectable_over_seeds(level, num_seeds - 1) + (1 - share) * normal if share else normal


@cache
def _detectable_over_seeds(level: float, freedom: int) -> float:
    """Return what ``detectable`` does if there is no variance but that of the seeds: the test is Student's.

    It is the noncentrality of a t distribution, computed as a mean over deviations that the seeds may have; scipy's
    distribution does not converge for the low levels of many comparisons.
    """
    import numpy as np
    from scipy import optimize, special

    shares = (np.arange(2000) + 0.5) / 2000
    bounds = critical_value(level, 1.0, freedom + 1) * np.sqrt(special.chdtri(freedom, shares) / freedom)
    found = optimize.brentq(lambda size: special.ndtr(size - bounds).mean() - POWER, 0, bounds.max() + 10)
    return float(found)


def corrected(found: Sequence[Comparison]) -> list[Comparison]:
    """Return comparisons that are made together with p adjusted by Holm's method.

    It controls the chance of any false finding. Source: Holm 1979, A Simple Sequentially Rejective Multiple Test
    Procedure.
    """
    p = [one.p for one in found]
    adjusted = dict.fromkeys(range(len(found)), 1.0)
    largest = 0.0
    for rank, place in enumerate(sorted(adjusted, key=p.__getitem__)):
        largest = max(largest, min(1.0, (len(found) - rank) * p[place]))
        adjusted[place] = largest
    return [replace(one, adjusted=adjusted[place], family=len(found)) for place, one in enumerate(found)]
