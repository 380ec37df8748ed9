"""Figure 4 of the paper, drawn from a grid: F1 against the fixed gate, and how the dynamic gate is distributed."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from umie.experiments.reference import paper
from umie.experiments.scheduler import GridRun
from umie.experiments.summary import Interval
from umie.files import atomic_write
from umie.reports.gate_study import (
    AGREES,
    DISAGREES,
    DYNAMIC,
    UNDECIDED,
    Sweep,
    gate_findings,
    gates_of,
    medians,
    sweeps,
)
from umie.reports.tables import markdown_table

SWEEP, HISTOGRAM = "gate_sweep.png", "gate_histogram.png"
NUM_BINS = 50


def draw_gates(run: GridRun, output: Path) -> list[str]:
    """Draw what a grid that varies the gate has found; return the names of the figures."""
    drawn = []
    found = [sweep for sweep in sweeps(run) if any(sweep.fixed.values())]
    if found:
        _draw_sweeps(run, found, output / SWEEP)
        drawn.append(SWEEP)
        gates = gates_of(run, output)
        if gates:
            _draw_histograms(run, gates, output / HISTOGRAM)
            drawn.append(HISTOGRAM)
    return drawn


def gate_report(run: GridRun, output: Path, drawn: Sequence[str]) -> str:
    """Return the section of the report about the gate, as Markdown; empty where no gate is varied."""
    findings = gate_findings(run)
    if not sweeps(run):
        return ""
    count = {verdict: sum(one.verdict == verdict for one in findings) for verdict in (AGREES, DISAGREES, UNDECIDED)}
    parts = [
        f"Held against the paper's section 'Gate Control Ablation' and Figure 4: {count[AGREES]} comparisons agree, "
        f"{count[DISAGREES]} disagree, {count[UNDECIDED]} are undecided. A difference is in points of F1, seed by "
        "seed, with its 95 % interval (Student's t); it agrees or disagrees where the whole interval does. Nothing is "
        "corrected for the number of comparisons.",
        markdown_table(
            ["variants", "task", "what the paper says", "difference [95 %]", "here"],
            [[one.sweep, one.task, one.said, one.measured, one.verdict] for one in findings],
        ),
    ]
    if found := medians(run, output):
        parts += [
            f"Dynamic gates of the queries about an image, all seeds together, beside the authors' "
            f"({paper()['gate']['medians']['source']}):",
            markdown_table(
                ["variants", "task", "queries", "median here", "median of the authors"],
                [
                    [title, task, str(number), f"{median:.3f}", "-" if printed is None else f"{printed:.3f}"]
                    for title, task, number, median, printed in found
                ],
            ),
        ]
    parts += [f"![{name}]({name})" for name in drawn]
    return "\n\n".join(parts)


def _draw_sweeps(run: GridRun, found: Sequence[Sweep], path: Path) -> None:
    """Draw a panel for each sweep: a line for each task with its interval, the dynamic gate as a band across."""
    figure, panels = _panels(len(found), 4.6, 4.4)
    for axes, sweep in zip(panels, found, strict=True):
        gates = [gate for gate, lines in sweep.fixed.items() if lines]
        places = list(range(len(gates)))  # evenly: 0.02 and 1 are both to be read
        for number, one in enumerate(run.scored):
            intervals = [Interval.of(sweep.f1(gate, one.key)) for gate in gates]
            means = [interval.mean for interval in intervals]
            color = f"C{number}"
            shift = 0.05 * (number - (len(run.scored) - 1) / 2)
            axes.plot([place + shift for place in places], means, "o-", color=color, markersize=4, label=one.title)
            for place, interval in zip(places, intervals, strict=True):
                if not math.isnan(interval.half_width):
                    low, high = _clipped(interval)
                    axes.plot([place + shift] * 2, [low, high], color=color, linewidth=1, alpha=0.7)
            if sweep.dynamic:
                dynamic = Interval.of(sweep.f1(DYNAMIC, one.key))
                axes.axhline(dynamic.mean, color=color, linestyle="--", linewidth=1.1)
                if not math.isnan(dynamic.half_width):
                    axes.axhspan(*_clipped(dynamic), color=color, alpha=0.10, linewidth=0)
        axes.set_xticks(places, [f"{gate:g}" for gate in gates])
        axes.set_xlim(-0.4, len(gates) - 0.6)
        axes.set_xlabel("fixed gate g")
        axes.set_title(sweep.title, fontsize=10)
        axes.grid(axis="y", alpha=0.3)
    panels[0].set_ylabel(f"strict micro-F1 ({run.grid.first.evaluation.split} split)")
    panels[0].plot([], [], "--", color="black", label="dynamic gate")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=3, fontsize=8)
    lines = "mean over seeds, 95 % interval" if len(run.grid.seeds) > 1 else "one seed"
    figure.suptitle(f"{run.grid.name}: F1 against the fixed gate ({lines})", fontsize=10)
    _save(figure, path)


def _draw_histograms(run: GridRun, gates: dict[str, dict[str, list[float]]], path: Path) -> None:
    """Draw a panel for each sweep: how the dynamic gate is distributed in each task, beside the authors' medians."""
    printed = paper()["gate"]["medians"]
    figure, panels = _panels(len(gates), 5.0, 5.6)
    for axes, (title, by_key) in zip(panels, gates.items(), strict=True):
        every = [gate for values in by_key.values() for gate in values]
        marks = [printed[one.task] for one in run.scored if one.task in printed]
        low, high = min([*every, *marks, 0.0]), max([*every, *marks])
        edges = [low + (high - low) * step / NUM_BINS for step in range(NUM_BINS + 1)]
        for number, one in enumerate(run.scored):
            values = by_key.get(one.key)
            if not values:
                continue
            color, median = f"C{number}", statistics.median(values)
            axes.hist(
                values,
                bins=edges,
                weights=[1 / len(values)] * len(values),
                histtype="stepfilled",
                color=color,
                alpha=0.35,
                label=f"{one.title}: median {median:.3f}",
            )
            axes.axvline(median, color=color, linewidth=1.2)
            if one.task in printed:
                label = f"{one.title}: the authors' median {printed[one.task]:.3f}"
                axes.axvline(printed[one.task], color=color, linestyle=":", linewidth=1.6, label=label)
        axes.set_xlabel("dynamic gate g")
        axes.set_title(title, fontsize=10)
        axes.legend(fontsize=7, loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=1)
    panels[0].set_ylabel("share of the queries about an image")
    figure.suptitle(f"{run.grid.name}: the dynamic gate by task, all seeds", fontsize=10)
    _save(figure, path)


def _panels(number: int, width: float, height: float) -> tuple[Any, list[Any]]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(max(6.0, width * number), height), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, number, squeeze=False, sharey=True)[0]
    return figure, list(panels)


def _clipped(interval: Interval) -> tuple[float, float]:
    return max(0.0, interval.mean - interval.half_width), min(1.0, interval.mean + interval.half_width)


def _save(figure: Any, path: Path) -> None:
    with atomic_write(path, "wb") as file:
        figure.savefig(file, format="png", dpi=150)
