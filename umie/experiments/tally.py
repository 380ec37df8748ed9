"""How far a grid is: the cells that finished, and the time until its end."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from umie.experiments.data_sets import Corpus
from umie.experiments.estimate import costs_of, known_costs, num_steps, shape_of
from umie.experiments.expand import Cell


@dataclass(frozen=True)
class Tally:
    """The state of a grid while it runs."""

    total: int  # cells of the grid
    finished: int  # of these, the cells that have a result
    ran: int = 0  # cells that ended in this run, including those that crashed
    planned: int = 0  # cells of this run
    left_s: float | None = None  # seconds until the end of this run, if anything is known about them


class GridProgress(Protocol):
    """Display of the progress of a grid."""

    def preparing(self, what: str) -> None:
        """Show a step before the first job."""

    def cells(self, tally: Tally) -> None:
        """Show how far the grid is."""

    def start(self, job: str) -> None:
        """Show that a job started."""

    def advance_job(self, job: str, phase: str, share: float) -> None:
        """Show the phase of a job, and the finished share (0..1) of the phase."""

    def finish(self, job: str, line: Mapping[str, Any]) -> None:
        """Show the result of a job."""

    def note(self, what: str) -> None:
        """Print a line."""


class Clock:
    """The time that the cells of a run still need, from the costs of cells that finished."""

    def __init__(self, every: Sequence[Cell], cells: Sequence[Cell], data: Corpus, output: Path, workers: int) -> None:
        self.every, self.workers = every, workers
        self.left = {cell.hash: cell for cell in cells}
        self.planned = len(cells)
        self.begun: dict[str, float] = {}
        self.costs = known_costs(output)
        self.lines: list[Mapping[str, Any]] = []
        self.shapes = {
            cell.hash: (shape_of(cell.config, data.fingerprint), num_steps(cell.config, data)) for cell in cells
        }

    def begin(self, cell: Cell) -> None:
        """Note the beginning of a cell."""
        self.begun[cell.hash] = time.monotonic()

    def end(self, line: Mapping[str, Any]) -> None:
        """Note the end of a cell."""
        self.left.pop(line["hash"], None)
        self.lines.append(line)

    def tally(self, results: Mapping[str, Mapping[str, Any]]) -> Tally:
        """Return the state of the grid."""
        finished = len(self.every) - len(unfinished(self.every, results))
        return Tally(len(self.every), finished, self.planned - len(self.left), self.planned, self._left_s())

    def _left_s(self) -> float | None:
        costs = self.costs | costs_of(self.lines)
        known = {hash_: costs[shape].seconds(steps) for hash_, (shape, steps) in self.shapes.items() if shape in costs}
        if not known:
            return None
        usual = statistics.mean(known.values())  # of cells that nothing is known about
        now = time.monotonic()
        rest = [
            max(0.0, known.get(hash_, usual) - (now - self.begun[hash_] if hash_ in self.begun else 0.0))
            for hash_ in self.left
        ]
        return max(sum(rest) / self.workers, max(rest, default=0.0))


def unfinished(cells: Sequence[Cell], results: Mapping[str, Mapping[str, Any]]) -> list[Cell]:
    """Return the cells without a successful result."""
    return [cell for cell in cells if results.get(cell.hash, {}).get("status") != "ok"]
