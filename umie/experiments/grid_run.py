"""A grid with its data and results, and the choice of the cells to run."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from typing import Any

from umie.errors import UmieError
from umie.experiments.combine import Rule, fits
from umie.experiments.data_sets import Corpus
from umie.experiments.expand import Cell, Grid
from umie.experiments.reference import Published, published
from umie.experiments.scored_tasks import ScoredTask, averaged, measure_of, scored_tasks
from umie.experiments.tally import unfinished


@dataclass(frozen=True)
class GridRun:
    """A finished grid: its data, all planned cells, and the latest result of each cell, by hash.

    ``chosen`` are the hashes of the cells that this call had to run.
    """

    grid: Grid
    data: Corpus
    cells: Sequence[Cell]
    results: Mapping[str, Mapping[str, Any]]
    chosen: Collection[str] = ()

    @cached_property
    def scored(self) -> list[ScoredTask]:
        """The scored tasks, which are the same for all cells."""
        return scored_tasks(self.grid.first, self.data)

    @cached_property
    def mean_over(self) -> list[str]:
        """The keys that the table averages."""
        return averaged(self.grid.first, self.scored)

    @cached_property
    def ceilings(self) -> dict[str, float]:
        """The best F1 without images, by key, if the distribution is known."""
        known = {one.key: self.data.sets[one.data_set].ceilings.get(one.task) for one in self.scored}
        return {key: ceiling for key, ceiling in known.items() if ceiling is not None}

    @cached_property
    def baselines(self) -> dict[str, tuple[str, float]]:
        """The baseline without a model of each scored task, by key: what it answers, and its F1."""
        from umie.scoring import baseline_score

        split, read = self.grid.first.evaluation.split, cache(lambda one, split: self.data.sets[one].read(split))
        found = {}
        for one in self.scored:
            files = self.data.sets[one.data_set].files
            if split in files:
                train = read(one.data_set, "train") if "train" in files else None
                measure = measure_of(self.grid.first, one.task)
                found[one.key] = baseline_score(one.task, read(one.data_set, split), train, measure)
        return found

    @cached_property
    def references(self) -> list[Published]:
        """The published scores to show next to the measured ones."""
        return published(self.grid.reference, self.scored)

    @property
    def compare_with(self) -> str | None:
        """The variant that the others are compared with, if the grid names one."""
        return self.grid.compare_with

    @property
    def crashed(self) -> list[Cell]:
        """The cells that crashed."""
        return [cell for cell in self.cells if self.results.get(cell.hash, {}).get("status") == "crashed"]

    @property
    def missing(self) -> list[Cell]:
        """The cells that did not run yet."""
        return [cell for cell in self.cells if cell.hash not in self.results]


@dataclass(frozen=True)
class Selection:
    """Which of the cells without a successful result to run.

    Args:
        rule: the labels that they must have, by slot; see ``Options.rules_of``.
        only_failed: run only cells that crashed.
        limit: run no more cells than this.
    """

    rule: Rule = field(default_factory=dict)
    only_failed: bool = False
    limit: int | None = None

    def of(self, cells: Sequence[Cell], results: Mapping[str, Mapping[str, Any]]) -> list[Cell]:
        """Return the cells to run, given all cells of a grid; raise UmieError if the rule fits none of them."""
        fitting = [cell for cell in cells if fits(self.rule, cell.options, cell.seed)]
        if not fitting:
            wanted = "; ".join(f"{slot} {' or '.join(sorted(labels))}" for slot, labels in self.rule.items())
            raise UmieError(f"--only fits no cell ({wanted}): list the cells with --plan")
        chosen = [cell for cell in unfinished(fitting, results) if not self.only_failed or cell.hash in results]
        return chosen[: self.limit]
