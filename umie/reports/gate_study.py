"""A grid that varies the gate: the paper's claims about it compared with the results, and Figure 4 of the paper."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from umie.experiments.data_sets import hash_of
from umie.experiments.expand import Cell
from umie.experiments.grid_run import GridRun
from umie.experiments.reference import paper
from umie.experiments.results import GATES, cell_folder, read_numbers
from umie.experiments.scored_tasks import ScoredTask
from umie.experiments.statistics import MIN_SEEDS
from umie.experiments.summary import Interval, drawable_interval
from umie.reports.gates import draw_gates
from umie.reports.style import DASHED, add_legend, clean_axes, line_key, new_figure, panels, save_figure, series_style
from umie.reports.tables import markdown_table
from umie.scoring.gates import gate_summary

SWEEP, HISTOGRAM = "gate_sweep.png", "gate_histogram.png"
GATE = "fusion.gate_"  # the parameters of the gate
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
        return list(self._by_seed(gate, key).values())

    def gain(self, gate: float | str, base: float | str, key: str) -> list[float]:
        """Return the F1 minus that of another gate for every seed that has both."""
        other = self._by_seed(base, key)
        return [f1 - other[seed] for seed, f1 in self._by_seed(gate, key).items() if seed in other]

    def _by_seed(self, gate: float | str, key: str) -> dict[int, float]:
        lines = self.dynamic if isinstance(gate, str) else self.fixed[gate]
        return {seed: float(line["metrics"][key]["f1"]) for seed, line in lines.items()}


class DynamicGates(NamedTuple):
    """The gates of a task's queries about an image in a sweep, over all seeds, and the authors' median if known."""

    sweep: str
    task: str
    values: list[float]
    published: float | None


class Finding(NamedTuple):
    """A claim of the paper compared with the results.

    The difference is in points of F1, with its interval; the verdict is ``agrees`` or ``disagrees`` if the whole
    interval does, else ``undecided``.
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
    found: dict[str, dict[str, list[float]]] = {}
    for cell in run.cells:
        line = run.results.get(cell.hash, {})
        if cell.parts["fusion"]["name"] == "gated" and _gate(cell) == DYNAMIC and line.get("status") == "ok":
            for key, gates in read_numbers(line, cell_folder(output, cell.hash) / GATES, depth=1).items():
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
    found = sweeps(run)
    findings = [finding for sweep in found for one in run.scored for finding in _findings(sweep, one)]
    return findings + [finding for sweep in found for finding in _gain_by_task(sweep, run.scored)]


def _findings(sweep: Sweep, one: ScoredTask) -> Iterator[Finding]:
    """Compare the dynamic with each fixed gate, and the gates above the paper's bound with the last below it."""
    facts = paper()["gate"]
    for gate in sweep.fixed:
        differences = sweep.gain(DYNAMIC, gate, one.key)
        printed = facts["gain"].get(one.task) if gate == 0 else None
        claim = f"dynamic is better than g = {gate:g}" + ("" if printed is None else f" (by {printed} in the paper)")
        for finding in _finding(sweep, one.title, claim, differences):
            difference = Interval.of(differences)
            if printed is not None and not math.isnan(difference.half_width):
                where = "inside" if abs(printed / 100 - difference.mean) <= difference.half_width else "outside"
                finding = finding._replace(measured=f"{finding.measured}, the paper's value is {where}")
            yield finding
    bound = facts["loss_above"]["gate"]
    below = max((gate for gate in sweep.fixed if gate <= bound), default=None)
    for gate in sweep.fixed:
        if below is not None and gate > bound:
            claim = f"g = {below:g} is better than g = {gate:g}"
            yield from _finding(sweep, one.title, claim, sweep.gain(below, gate, one.key))


def _gain_by_task(sweep: Sweep, scored: Sequence[ScoredTask]) -> Iterator[Finding]:
    """Compare how much the image helps each task: in the paper, it hardly helps MNER."""
    if 0 not in sweep.fixed:
        return
    for base in [one for one in scored if one.task == "mner"]:
        for one in scored:
            if one.task in ("mre", "med", "meae"):
                gains = zip(sweep.gain(DYNAMIC, 0, one.key), sweep.gain(DYNAMIC, 0, base.key), strict=True)
                claim = f"gains more over g = 0 than {base.title}"
                yield from _finding(sweep, one.title, claim, [more - less for more, less in gains])


def _finding(sweep: Sweep, task: str, claim: str, differences: Sequence[float]) -> Iterator[Finding]:
    """Yield a finding if there are differences, one per seed."""
    if differences:
        difference = Interval.of(differences)
        low, high = difference.ends
        verdict = (
            AGREES if low > 0 else DISAGREES if high < 0 else UNDECIDED
        )  # with fewer than three seeds NaN: undecided
        interval = "" if math.isnan(difference.half_width) else f" [{100 * low:+.1f}, {100 * high:+.1f}]"
        yield Finding(sweep.title, task, claim, f"{100 * difference.mean:+.1f}{interval}", verdict)


def _group(cell: Cell) -> str:
    """Return a key for the options that variants of one sweep share: all but the gate and its treatment in training."""
    training = {key: value for key, value in cell.training.items() if key != "initialize_fusion"}
    rates = training.pop("learning_rate_multipliers", {})
    training["learning_rate_multipliers"] = {key: one for key, one in rates.items() if not key.startswith(GATE)}
    fusion = {key: value for key, value in cell.parts["fusion"].items() if key not in ("gate", "detach_gate")}
    fusion.setdefault("residual", "paper")
    return hash_of([{**cell.parts, "fusion": fusion}, training, cell.config.trained_on, cell.config.wording])


def _gate(cell: Cell) -> float | str:
    gate = cell.parts["fusion"].get("gate", DYNAMIC)
    return gate if isinstance(gate, str) else float(gate)


def _title(cell: Cell) -> str:
    """Return the title of a sweep: its residual and the other options that the grid varies."""
    fusion = {key: value for key, value in cell.parts["fusion"].items() if key not in ("name", "gate", "detach_gate")}
    options = [f"residual {fusion.pop('residual', 'paper')}", *(f"{key} {value}" for key, value in fusion.items())]
    return ", ".join([*options, *(label for slot, label in cell.labels.items() if slot != "fusion")])


def write_gate_study(run: GridRun, output: Path) -> str:
    """Draw the figures of a grid that varies the gate, and return the section about it as Markdown.

    The section of another grid is empty. A grid without recorded gates has no histogram.
    """
    found = sweeps(run)
    if not found:
        return ""
    findings = gate_findings(run)
    count = {verdict: sum(one.verdict == verdict for one in findings) for verdict in (AGREES, DISAGREES, UNDECIDED)}
    parts = [
        f"Compared with the paper's section 'Gate Control Ablation' and Figure 4: {count[AGREES]} comparisons agree, "
        f"{count[DISAGREES]} disagree, {count[UNDECIDED]} are undecided. A difference is in points of F1 between runs "
        "with the same seed, with its 95% interval (Student's t). It agrees or disagrees only if the whole interval "
        "does. There is no correction for multiple comparisons.",
        markdown_table(["variants", "task", "claim of the paper", "difference [95%]", "verdict"], findings),
    ]
    gates = dynamic_gates(run, output)
    if gates:
        rows = [
            (
                one.sweep,
                one.task,
                len(one.values),
                f"{gate_summary(one.values)['median']:.3f}",
                "-" if one.published is None else f"{one.published:.3f}",
            )
            for one in gates
        ]
        parts += [
            f"Dynamic gates of the queries about {'an image' if run.data.has_only_images else 'media'} over all seeds, "
            f"next to the {paper()['gate']['medians']['source']}:",
            markdown_table(["variants", "task", "queries", "median", "the authors' median"], rows),
        ]
    drawn = [sweep for sweep in found if any(sweep.fixed.values())]
    if drawn:
        _draw_sweeps(run, drawn, output / SWEEP)
        parts.append(f"![{SWEEP}]({SWEEP})")
    if drawn and gates:
        has_several_sweeps = len({one.sweep for one in gates}) > 1
        titled = {f"{one.task}, {one.sweep}" if has_several_sweeps else one.task: one for one in gates}
        medians = {title: one.published for title, one in titled.items() if one.published is not None}
        values = {title: one.values for title, one in titled.items()}
        draw_gates(values, output / HISTOGRAM, reference=medians, vector=True)
        parts.append(f"![{HISTOGRAM}]({HISTOGRAM})")
    return "\n\n".join(parts)


def _draw_sweeps(run: GridRun, found: Sequence[Sweep], path: Path) -> None:
    """Draw a panel per sweep: F1 against the fixed gate by task, and the F1 of the dynamic gate as a dashed line."""
    figure = new_figure(max(6.0, 4.6 * len(found)), 4.4)
    all_axes = panels(figure, len(found), len(found), sharey=True)
    for axes, sweep in zip(all_axes, found, strict=True):
        gates = [gate for gate, lines in sweep.fixed.items() if lines]
        for number, one in enumerate(run.scored):
            style = series_style(number)
            color = style["color"]
            shift = 0.05 * (number - (len(run.scored) - 1) / 2)
            places = [place + shift for place in range(len(gates))]  # equal distances, so that 0.02 and 1 are readable
            scores = [sweep.f1(gate, one.key) for gate in gates]
            means = [Interval.of(values).mean for values in scores]
            axes.plot(places, means, markersize=4.5, label=one.title, **style)
            for place, values in zip(places, scores, strict=True):
                if (interval := drawable_interval(values)) is not None:
                    axes.plot([place] * 2, interval, color=color, linewidth=1, alpha=0.7)
                elif len(values) > 1:
                    axes.plot([place] * len(values), values, ".", color=color, markersize=3.5, alpha=0.7)
            if sweep.dynamic:
                values = sweep.f1(DYNAMIC, one.key)
                axes.axhline(Interval.of(values).mean, **{**DASHED, "color": color})
                if (interval := drawable_interval(values)) is not None:
                    axes.axhspan(*interval, color=color, alpha=0.10, linewidth=0)
        clean_axes(axes, title=sweep.title, x="fixed gate g")
        axes.set_xticks(range(len(gates)), [f"{gate:g}" for gate in gates])
        axes.set_xlim(-0.4, len(gates) - 0.6)
    all_axes[0].set_ylabel(f"strict micro-F1 ({run.grid.first.evaluation.split} split)", fontsize=9)
    handles = [*all_axes[0].get_legend_handles_labels()[0], line_key("dynamic gate", DASHED)]
    add_legend(figure, handles, columns=5)
    shown = "each seed" if len(run.grid.seeds) < MIN_SEEDS else "95% interval"
    shown = f"mean over seeds, {shown}" if len(run.grid.seeds) > 1 else "one seed"
    figure.suptitle(f"{run.grid.name}: F1 against the fixed gate ({shown})", fontsize=10)
    save_figure(figure, path, vector=True)
