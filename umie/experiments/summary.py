"""Summary of a grid: the mean and interval of each variant over its seeds."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from umie.experiments.scored_tasks import ScoredTask
from umie.experiments.statistics import ALPHA, MIN_SEEDS

MEAN = "mean"


class CellLike(Protocol):
    """A cell, of a grid that ran or of a directory."""

    @property
    def hash(self) -> str:
        """Its id."""

    @property
    def variant(self) -> str:
        """The name of its variant."""

    @property
    def seed(self) -> int:
        """Its seed."""

    @property
    def labels(self) -> Mapping[str, str]:
        """The labels that name the variant, by slot."""

    @property
    def options(self) -> Mapping[str, str]:
        """The labels of all options, by slot."""

    @property
    def uses_image(self) -> bool:
        """Whether its fusion uses the image."""

    @property
    def trained_on(self) -> Sequence[str]:
        """The data sets that it is trained on."""

    @property
    def setup(self) -> Mapping[str, Any]:
        """Its config without the seed, as plain data."""


class ReferenceLike(Protocol):
    """Published scores of everything that a grid scores, None where nothing was published."""

    @property
    def label(self) -> str:
        """Its name in tables."""

    @property
    def values(self) -> Sequence[float | None]:
        """F1 (0..1) by scored task."""


class GridLike(Protocol):
    """The results of a grid that ran, or of a directory."""

    @property
    def cells(self) -> Sequence[CellLike]:
        """The planned cells."""

    @property
    def results(self) -> Mapping[str, Mapping[str, Any]]:
        """The newest result of each cell that has one, by hash."""

    @property
    def scored(self) -> Sequence[ScoredTask]:
        """The scored tasks."""

    @property
    def mean_over(self) -> Sequence[str]:
        """The keys of the scored tasks that the mean averages."""

    @property
    def ceilings(self) -> Mapping[str, float]:
        """The best F1 without images, by key, if it is known."""

    @property
    def baselines(self) -> Mapping[str, tuple[str, float]]:
        """The baseline without a model, by key: what it answers, and its F1."""

    @property
    def compare_with(self) -> str | None:
        """The variant that the others are compared with, if the grid names one."""

    @property
    def references(self) -> Sequence[ReferenceLike]:
        """Published scores."""


@dataclass(frozen=True)
class Interval:
    """The mean over seeds and the half width of its 95% interval (Student's t), which is NaN for fewer than three."""

    mean: float
    half_width: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Interval:
        """Return the mean and interval of values, one per seed."""
        if len(values) < MIN_SEEDS:
            return cls(statistics.mean(values) if values else math.nan, math.nan)
        from scipy import stats

        quantile = float(stats.t.ppf(1 - ALPHA / 2, len(values) - 1))
        return cls(statistics.mean(values), quantile * statistics.stdev(values) / math.sqrt(len(values)))

    @property
    def ends(self) -> tuple[float, float]:
        """The lower and the upper end."""
        return self.mean - self.half_width, self.mean + self.half_width

    def __str__(self) -> str:
        if math.isnan(self.mean):
            return "-"
        return f"{self.mean:.3f}" if math.isnan(self.half_width) else f"{self.mean:.3f} ± {self.half_width:.3f}"


@dataclass(frozen=True)
class Row:
    """The successful results of one variant, one per seed, and its F1 by scored task and on average (``mean``)."""

    variant: str
    lines: Sequence[Mapping[str, Any]]
    scores: Mapping[str, Interval]


def rows(run: GridLike) -> list[Row]:
    """Return one row per variant in the order of the grid; crashed cells are excluded from the means."""
    by_variant: dict[str, list[Mapping[str, Any]]] = {}
    for cell in run.cells:
        lines = by_variant.setdefault(cell.variant, [])
        line = run.results.get(cell.hash)
        if line is not None and line["status"] == "ok":
            lines.append(line)
    names = [*(one.key for one in run.scored), MEAN]
    return [
        Row(variant, lines, {name: Interval.of([score(line, name, run.mean_over) for line in lines]) for name in names})
        for variant, lines in by_variant.items()
    ]


def score(line: Mapping[str, Any], name: str, mean_over: Sequence[str]) -> float:
    """Return the F1 of one result: of a scored task by its key, or the mean over keys."""
    keys = mean_over if name == MEAN else [name]
    return float(statistics.mean(line["metrics"][key]["f1"] for key in keys))


def drawable_interval(values: Sequence[float]) -> tuple[float, float] | None:
    """Return the 95% interval of F1 values, clipped to 0..1, or None if there are fewer than three."""
    low, high = Interval.of(values).ends
    return None if math.isnan(low) else (max(0.0, low), min(1.0, high))


def title(run: GridLike, name: str) -> str:
    """Return the title of a scored task by its key, or ``mean``."""
    return next((one.title for one in run.scored if one.key == name), name)


def complete_mean(scores: Mapping[str, float | None], keys: Sequence[str]) -> float | None:
    """Return the mean over keys, or None if a score is missing."""
    known = [value for value in map(scores.get, keys) if value is not None]
    return statistics.mean(known) if known and len(known) == len(keys) else None


def health_mean(lines: Sequence[Mapping[str, Any]], key: str) -> float | None:
    """Return the mean of a diagnostic such as ``gate_mean`` over the results that have it, or None."""
    values = [line["health"][key] for line in lines if key in line["health"]]
    return statistics.mean(values) if values else None
