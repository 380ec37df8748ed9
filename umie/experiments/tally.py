"""How far a grid is: the cells that finished, and the time until its end."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from umie.experiments.data_sets import Corpus
from umie.experiments.estimate import costs_of, known_costs, num_steps, shape_of
from umie.experiments.expand import Cell

MAX_LINES = 32  # finished cells of a shape that its cost is computed from


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


class Silent:
    """A display that shows nothing."""

    def preparing(self, *what: object, **named: object) -> None:
        """Show nothing."""

    cells = start = advance_job = finish = note = preparing


class Clock:
    """The time that the cells of a run still need, from the costs of cells that finished.

    Args:
        every: all cells of the grid.
        cells: those of this run.
        data: their data.
        output: the directory of the grid.
        workers: number of cells at the same time.
        results: the results that exist, by hash of the cell.
    """

    def __init__(
        self,
        every: Sequence[Cell],
        cells: Sequence[Cell],
        data: Corpus,
        output: Path,
        workers: int,
        results: Mapping[str, Mapping[str, Any]],
    ) -> None:
        self.total, self.workers, self.planned = len(every), workers, len(cells)
        self.finished = len(every) - len(unfinished(every, results))
        self.left = {
            cell.hash: (shape_of(cell.config, data.fingerprint), num_steps(cell.config, data)) for cell in cells
        }
        self.begun: dict[str, float] = {}
        self.costs = known_costs(output)
        self.lines: dict[str, list[Mapping[str, Any]]] = {}  # of this run, by shape
        self.planned_kinds = Counter(self.left.values())  # cells with the same costs, by shape and number of steps
        self.waiting_kinds = Counter(self.left.values())  # those that did not begin

    def begin(self, hash_: str) -> None:
        """Note the beginning of a cell; that of a warm start is ignored."""
        if hash_ in self.left:
            self.begun[hash_] = time.monotonic()
            self.waiting_kinds[self.left[hash_]] -= 1

    def end(self, line: Mapping[str, Any]) -> Tally:
        """Note the end of a cell; return the state of the grid."""
        kind = self.left.pop(line["hash"])
        if self.begun.pop(line["hash"], None) is None:
            self.waiting_kinds[kind] -= 1
        if line["status"] == "ok":
            self.finished += 1
            own = self.lines.setdefault(kind[0], [])
            if len(own) < MAX_LINES:
                own.append(line)
                self.costs |= costs_of(own)
        return self.tally()

    def tally(self) -> Tally:
        """Return the state of the grid."""
        return Tally(self.total, self.finished, self.planned - len(self.left), self.planned, self._left_s())

    def _left_s(self) -> float | None:
        known = {kind: self.costs[kind[0]].seconds(kind[1]) for kind in self.planned_kinds if kind[0] in self.costs}
        if not known:
            return None
        num_known = sum(self.planned_kinds[kind] for kind in known)
        usual = sum(seconds * self.planned_kinds[kind] for kind, seconds in known.items()) / num_known
        waiting = [(known.get(kind, usual), count) for kind, count in self.waiting_kinds.items() if count]
        now = time.monotonic()
        running = [max(0.0, known.get(self.left[one], usual) - (now - begun)) for one, begun in self.begun.items()]
        total = sum(seconds * count for seconds, count in waiting) + sum(running)
        return max(total / self.workers, max([*running, *(seconds for seconds, _ in waiting)], default=0.0))


def unfinished(cells: Sequence[Cell], results: Mapping[str, Mapping[str, Any]]) -> list[Cell]:
    """Return the cells without a successful result."""
    return [cell for cell in cells if results.get(cell.hash, {}).get("status") != "ok"]
