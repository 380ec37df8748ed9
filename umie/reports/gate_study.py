"""A grid that varies the gate: the paper's claims about fixed and dynamic gates compared with the results."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from umie.experiments.data_sets import hash_of
from umie.experiments.expand import Cell
from umie.experiments.reference import paper
from umie.experiments.scheduler import GridRun
from umie.experiments.scored_tasks import ScoredTask
from umie.experiments.summary import Interval

DYNAMIC = "dynamic"
AGREES, DISAGREES, UNDECIDED = "agrees", "disagrees", "undecided"


@dataclass(frozen=True)
class Sweep:
    """Variants that differ only in their gate.

    Args:
        title: the options that distinguish the sweep from others of the grid.
        fixed: the results by seed for each fixed gate, in ascending order.
        dynamic: the results with a dynamic gate by seed, which may be empty.
    """

    title: str
    fixed: Mapping[float, Mapping[int, Mapping[str, Any]]]
    dynamic: Mapping[int, Mapping[str, Any]]

    def f1(self, gate: float | str, key: str) -> list[float]:
        """Return the F1 of every seed."""
        return [float(line["metrics"][key]["f1"]) for line in self._lines(gate).values()]

    def gain(self, gate: float | str, base: float | str, key: str) -> list[float]:
        """Return the F1 minus that of another gate for every seed that has both."""
        one, other = self._lines(gate), self._lines(base)
        return [
            float(one[seed]["metrics"][key]["f1"] - other[seed]["metrics"][key]["f1"]) for seed in one if seed in other
        ]

    def _lines(self, gate: float | str) -> Mapping[int, Mapping[str, Any]]:
        return self.dynamic if isinstance(gate, str) else self.fixed[gate]


@dataclass(frozen=True)
class DynamicGates:
    """The dynamic gates of a task in a sweep, over all seeds.

    Args:
        sweep: the title of the sweep.
        task: the title of the scored task.
        values: the gate of every query about an image.
        published: the median in the authors' data, if known.
    """

    sweep: str
    task: str
    values: Sequence[float]
    published: float | None


@dataclass(frozen=True)
class Finding:
    """A claim of the paper compared with the results.

    Args:
        sweep: the title of the sweep.
        task: the title of the scored task.
        claim: the claim.
        measured: the difference in points of F1 with its interval.
        verdict: ``agrees`` or ``disagrees`` if the whole interval does, else ``undecided``.
    """

    sweep: str
    task: str
    claim: str
    measured: str
    verdict: str


def sweeps(run: GridRun) -> list[Sweep]:
    """Return the groups of variants with at least two gates, at least one of them fixed."""
    groups: dict[str, list[Cell]] = {}
    for cell in run.cells:
        if cell.parts["fusion"]["name"] == "gated":
            groups.setdefault(_group(cell), []).append(cell)
    found = []
    for cells in groups.values():
        results: dict[float | str, dict[int, Mapping[str, Any]]] = {}
        for cell in cells:
            line = run.results.get(cell.hash)
            lines = results.setdefault(_gate(cell), {})
            if line is not None and line["status"] == "ok":
                lines[cell.seed] = line
        fixed = {gate: results[gate] for gate in sorted(gate for gate in results if not isinstance(gate, str))}
        if fixed and len(results) > 1:
            found.append(Sweep(_title(cells[0]), fixed, results.get(DYNAMIC, {})))
    return found


def dynamic_gates(run: GridRun, output: Path) -> list[DynamicGates]:
    """Return the dynamic gates that the cells in a grid's folder recorded."""
    from umie.experiments.run_job import GATES

    found: dict[str, dict[str, list[float]]] = {}
    for cell in run.cells:
        path = output / "cells" / cell.hash / GATES
        if cell.parts["fusion"]["name"] == "gated" and _gate(cell) == DYNAMIC and path.exists():
            for key, gates in json.loads(path.read_text(encoding="utf-8")).items():
                found.setdefault(_title(cell), {}).setdefault(key, []).extend(gates)
    published = paper()["gate"]["medians"]
    return [
        DynamicGates(sweep, one.title, gates[one.key], published.get(one.task))
        for sweep, gates in found.items()
        for one in run.scored
        if gates.get(one.key)
    ]


def gate_findings(run: GridRun) -> list[Finding]:
    """Compare the paper's claims about the gate with every sweep of the grid."""
    return [
        finding
        for sweep in sweeps(run)
        for one in run.scored
        for finding in [*_dynamic_versus_fixed(sweep, one), *_loss_above_bound(sweep, one)]
    ] + [finding for sweep in sweeps(run) for finding in _gain_by_task(sweep, run.scored)]


def _dynamic_versus_fixed(sweep: Sweep, one: ScoredTask) -> Iterator[Finding]:
    printed = paper()["gate"]["gain"].get(one.task)
    for gate in sweep.fixed:
        differences = sweep.gain(DYNAMIC, gate, one.key)
        if not differences:
            continue
        claim, difference = f"dynamic is better than g = {gate:g}", Interval.of(differences)
        if gate != 0 or printed is None:
            yield _finding(sweep, one.title, claim, difference)
            continue
        found = _finding(sweep, one.title, f"{claim} (by {printed} in the paper)", difference)
        if len(differences) > 1:
            where = "inside" if abs(printed / 100 - difference.mean) <= difference.half_width else "outside"
            found = replace(found, measured=f"{found.measured}, the paper's value is {where}")
        yield found


def _loss_above_bound(sweep: Sweep, one: ScoredTask) -> Iterator[Finding]:
    bound = paper()["gate"]["loss_above"]["gate"]
    below = [gate for gate in sweep.fixed if gate <= bound]
    for gate in sweep.fixed:
        if below and gate > bound:
            losses = sweep.gain(below[-1], gate, one.key)
            if losses:
                yield _finding(sweep, one.title, f"g = {below[-1]:g} is better than g = {gate:g}", Interval.of(losses))


def _gain_by_task(sweep: Sweep, scored: Sequence[ScoredTask]) -> Iterator[Finding]:
    """Compare how much the image helps each task: in the paper, it hardly helps MNER."""
    if 0 not in sweep.fixed:
        return
    for base in [one for one in scored if one.task == "mner"]:
        for one in scored:
            if one.task in ("mre", "med", "meae"):
                gains = zip(sweep.gain(DYNAMIC, 0, one.key), sweep.gain(DYNAMIC, 0, base.key), strict=True)
                differences = [more - less for more, less in gains]
                if differences:
                    claim = f"gains more over g = 0 than {base.title}"
                    yield _finding(sweep, one.title, claim, Interval.of(differences))


def _finding(sweep: Sweep, task: str, claim: str, difference: Interval) -> Finding:
    low, high = difference.low, difference.high
    verdict = AGREES if low > 0 else DISAGREES if high < 0 else UNDECIDED  # a single seed has NaN: undecided
    shown = f"{100 * difference.mean:+.1f}"
    if not math.isnan(difference.half_width):
        shown += f" [{100 * low:+.1f}, {100 * high:+.1f}]"
    return Finding(sweep.title, task, claim, shown, verdict)


def _group(cell: Cell) -> str:
    """Return a key for the options that variants of one sweep share: all but the gate and ``detach_gate``."""
    fusion = {key: value for key, value in cell.parts["fusion"].items() if key not in ("gate", "detach_gate")}
    fusion.setdefault("residual", "paper")
    return hash_of([{**cell.parts, "fusion": fusion}, cell.training, cell.config.trained_on, cell.config.wording])


def _gate(cell: Cell) -> float | str:
    gate = cell.parts["fusion"].get("gate", DYNAMIC)
    return gate if isinstance(gate, str) else float(gate)


def _title(cell: Cell) -> str:
    """Return the title of a sweep: its residual and the other options that the grid varies."""
    fusion = {key: value for key, value in cell.parts["fusion"].items() if key not in ("name", "gate", "detach_gate")}
    options = [f"residual {fusion.pop('residual', 'paper')}", *(f"{key} {value}" for key, value in fusion.items())]
    return ", ".join([*options, *(label for slot, label in cell.labels.items() if slot != "fusion")])
