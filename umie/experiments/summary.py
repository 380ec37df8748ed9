"""What a grid's results come to: mean and interval of every variant over its seeds, and what tables call them."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from umie.experiments.scheduler import GridRun

MEAN = "mean"


@dataclass(frozen=True)
class Interval:
    """Mean over seeds and the half width of its 95 % interval (Student's t); NaN with a single seed."""

    mean: float
    half_width: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Interval:
        """Return the interval of some values."""
        if len(values) < 2:
            return cls(values[0] if values else math.nan, math.nan)
        from scipy import stats

        quantile = float(stats.t.ppf(0.975, len(values) - 1))
        return cls(statistics.mean(values), quantile * statistics.stdev(values) / math.sqrt(len(values)))

    def __str__(self) -> str:
        if math.isnan(self.mean):
            return "-"
        return f"{self.mean:.3f}" if math.isnan(self.half_width) else f"{self.mean:.3f} ± {self.half_width:.3f}"


@dataclass(frozen=True)
class Row:
    """One variant over its seeds.

    Args:
        variant: its name.
        lines: the good results, one for each seed.
        scores: F1 by key of what is scored, and under ``mean`` the average of those that the grid averages.
    """

    variant: str
    lines: Sequence[Mapping[str, Any]]
    scores: Mapping[str, Interval]


def rows(run: GridRun) -> list[Row]:
    """Return one row for each variant, in the order of the grid; crashed cells are left out of the means."""
    by_variant: dict[str, list[Mapping[str, Any]]] = {}
    for cell in run.cells:
        lines = by_variant.setdefault(cell.variant, [])
        line = run.results.get(cell.hash)
        if line is not None and line["status"] == "ok":
            lines.append(line)
    return [
        Row(
            variant,
            lines,
            {
                name: Interval.of([score(line, name, run.mean_over) for line in lines])
                for name in [*(one.key for one in run.scored), MEAN]
            },
        )
        for variant, lines in by_variant.items()
    ]


def score(line: Mapping[str, Any], name: str, mean_over: Sequence[str]) -> float:
    """Return the F1 of one result by key, or the mean over keys."""
    if name == MEAN:
        return float(statistics.mean(line["metrics"][key]["f1"] for key in mean_over))
    return float(line["metrics"][name]["f1"])


def title(run: GridRun, name: str) -> str:
    """Return what a table calls a key, or the mean: MEAE on annotated events is named as the oracle that it is."""
    return next((one.title for one in run.scored if one.key == name), name)


def mean_ceiling(run: GridRun) -> float | None:
    """Return the ceiling of the mean; None where one that it takes is not known."""
    known = [run.ceilings.get(key) for key in run.mean_over]
    return None if None in known or not known else statistics.mean(value for value in known if value is not None)


def mean_of(lines: Sequence[Mapping[str, Any]], group: str, key: str) -> float | None:
    """Return the mean of a figure over the results that have it, or None."""
    values = [line[group][key] for line in lines if key in line[group]]
    return statistics.mean(values) if values else None
