"""A grid that varies the gate: what the paper says about fixed and dynamic gates, held against the results."""

from __future__ import annotations

import json
import statistics
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
    """Variants that differ in their gate alone.

    Args:
        title: what tells the sweep from others of the grid.
        fixed: for each fixed gate, ascending, the results by seed.
        dynamic: the results with a dynamic gate by seed; empty without.
    """

    title: str
    fixed: Mapping[float, Mapping[int, Mapping[str, Any]]]
    dynamic: Mapping[int, Mapping[str, Any]]

    def f1(self, gate: float | str, key: str) -> list[float]:
        """Return the F1 of every seed."""
        lines = self.dynamic if isinstance(gate, str) else self.fixed[gate]
        return [float(line["metrics"][key]["f1"]) for line in lines.values()]

    def gain(self, gate: float | str, base: float | str, key: str) -> list[float]:
        """Return F1 minus the F1 of another gate, seed by seed."""
        one = self.dynamic if isinstance(gate, str) else self.fixed[gate]
        other = self.dynamic if isinstance(base, str) else self.fixed[base]
        return [
            float(one[seed]["metrics"][key]["f1"] - other[seed]["metrics"][key]["f1"]) for seed in one if seed in other
        ]


@dataclass(frozen=True)
class Finding:
    """A sentence of the paper held against the results.

    Args:
        sweep: which sweep.
        task: title of what is scored.
        said: what the paper says.
        measured: the difference, in points of F1, and its interval.
        verdict: ``agrees`` or ``disagrees`` where the interval lies on one side, else ``undecided``.
    """

    sweep: str
    task: str
    said: str
    measured: str
    verdict: str


def sweeps(run: GridRun) -> list[Sweep]:
    """Return the groups of variants with two gates or more, one of them fixed."""
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
            found.append(Sweep(_title(run, cells[0]), fixed, results.get(DYNAMIC, {})))
    return found


def gates_of(run: GridRun, output: Path) -> dict[str, dict[str, list[float]]]:
    """Return the dynamic gates of every query about an image, by sweep and key, of all seeds together."""
    from umie.experiments.cell import GATES

    found: dict[str, dict[str, list[float]]] = {}
    for cell in run.cells:
        path = output / "cells" / cell.hash / GATES
        if cell.parts["fusion"]["name"] == "gated" and _gate(cell) == DYNAMIC and path.exists():
            for key, gates in json.loads(path.read_text(encoding="utf-8")).items():
                found.setdefault(_title(run, cell), {}).setdefault(key, []).extend(gates)
    return found


def gate_findings(run: GridRun) -> list[Finding]:
    """Hold the paper's sentences about the gate against every sweep of the grid."""
    return [
        finding
        for sweep in sweeps(run)
        for one in run.scored
        for finding in [*_beside_dynamic(sweep, one), *_above_bound(sweep, one)]
    ] + [finding for sweep in sweeps(run) for finding in _order(sweep, run.scored)]


def _beside_dynamic(sweep: Sweep, one: ScoredTask) -> Iterator[Finding]:
    printed = paper()["gate"]["gain"].get(one.task)
    for gate in sweep.fixed:
        differences = sweep.gain(DYNAMIC, gate, one.key)
        if not differences:
            continue
        said, difference = f"dynamic is better than g = {gate:g}", Interval.of(differences)
        if gate != 0 or printed is None:
            yield _finding(sweep, one.title, said, difference)
            continue
        is_inside = abs(printed / 100 - difference.mean) <= difference.half_width
        found = _finding(sweep, one.title, f"{said} (by {printed} in the paper)", difference)
        where = "inside" if is_inside else "outside"
        yield replace(
            found, measured=f"{found.measured}, the paper's {where}" if len(differences) > 1 else found.measured
        )


def _above_bound(sweep: Sweep, one: ScoredTask) -> Iterator[Finding]:
    bound = paper()["gate"]["loss_above"]["gate"]
    below = [gate for gate in sweep.fixed if gate <= bound]
    for gate in sweep.fixed:
        if below and gate > bound:
            losses = sweep.gain(below[-1], gate, one.key)
            if losses:
                yield _finding(sweep, one.title, f"g = {below[-1]:g} is better than g = {gate:g}", Interval.of(losses))


def _order(sweep: Sweep, asked: Sequence[ScoredTask]) -> Iterator[Finding]:
    """Compare how much tasks gain by the image: the paper finds MNER hardly sensitive to it."""
    if 0 not in sweep.fixed:
        return
    for name in [one for one in asked if one.task == "mner"]:
        for one in asked:
            if one.task in ("mre", "med", "meae"):
                gains = zip(sweep.gain(DYNAMIC, 0, one.key), sweep.gain(DYNAMIC, 0, name.key), strict=True)
                differences = [more - less for more, less in gains]
                if differences:
                    said = f"gains more over g = 0 than {name.title}"
                    yield _finding(sweep, one.title, said, Interval.of(differences))


def _finding(sweep: Sweep, task: str, said: str, difference: Interval) -> Finding:
    low, high = difference.mean - difference.half_width, difference.mean + difference.half_width
    verdict = AGREES if low > 0 else DISAGREES if high < 0 else UNDECIDED  # NaN, with a single seed: undecided
    shown = f"{100 * difference.mean:+.1f}"
    if difference.half_width == difference.half_width:
        shown += f" [{100 * low:+.1f}, {100 * high:+.1f}]"
    return Finding(sweep.title, task, said, shown, verdict)


def medians(run: GridRun, output: Path) -> list[tuple[str, str, int, float, float | None]]:
    """Return sweep, task, number, median of the dynamic gates, and the median that the authors published."""
    printed = paper()["gate"]["medians"]
    return [
        (title, one.title, len(gates[one.key]), statistics.median(gates[one.key]), printed.get(one.task))
        for title, gates in gates_of(run, output).items()
        for one in run.scored
        if gates.get(one.key)
    ]


def _group(cell: Cell) -> str:
    """Return what variants of one sweep share; how the gate's gradient flows is a trick of the dynamic one."""
    fusion = {key: value for key, value in cell.parts["fusion"].items() if key not in ("gate", "detach_gate")}
    fusion.setdefault("residual", "paper")
    return hash_of([{**cell.parts, "fusion": fusion}, cell.training, cell.config.trained_on, cell.config.wording])


def _gate(cell: Cell) -> float | str:
    gate = cell.parts["fusion"].get("gate", DYNAMIC)
    return gate if isinstance(gate, str) else float(gate)


def _title(run: GridRun, cell: Cell) -> str:
    """Return what tells a sweep from others: its residual, and whatever else the grid varies."""
    fusion = {key: value for key, value in cell.parts["fusion"].items() if key not in ("name", "gate", "detach_gate")}
    told = [f"residual {fusion.pop('residual', 'paper')}", *(f"{key} {value}" for key, value in fusion.items())]
    rest = [text for slot, text in cell.labels.items() if slot != "fusion"]
    return ", ".join([*told, *rest])
