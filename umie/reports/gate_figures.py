"""Figure 4 of the paper for a grid: F1 against the fixed gate, the distribution of the dynamic gate, and a section."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from umie.evaluation.gates import gate_summary
from umie.experiments.reference import paper
from umie.experiments.scheduler import GridRun
from umie.experiments.summary import MIN_SEEDS, Interval, drawable_interval
from umie.reports.gate_study import (
    AGREES,
    DISAGREES,
    DYNAMIC,
    UNDECIDED,
    DynamicGates,
    Sweep,
    dynamic_gates,
    gate_findings,
    sweeps,
)
from umie.reports.gates import draw_gates
from umie.reports.style import DASHED, MARKERS, add_legend, clean_axes, line_key, new_figure, save_figure, series_color
from umie.reports.tables import markdown_table

SWEEP, HISTOGRAM = "gate_sweep.png", "gate_histogram.png"


def draw_gate_figures(run: GridRun, output: Path) -> list[str]:
    """Draw the figures of a grid that varies the gate; return their names."""
    found = [sweep for sweep in sweeps(run) if any(sweep.fixed.values())]
    if not found:
        return []
    _draw_sweeps(run, found, output / SWEEP)
    gates = dynamic_gates(run, output)
    if not gates:
        return [SWEEP]
    titles = _titles(gates)
    draw_gates(
        {title: one.values for title, one in zip(titles, gates, strict=True)},
        output / HISTOGRAM,
        reference={title: one.published for title, one in zip(titles, gates, strict=True) if one.published is not None},
        pdf=True,
    )
    return [SWEEP, HISTOGRAM]


def gate_report(run: GridRun, output: Path, figures: Sequence[str]) -> str:
    """Return the section about the gate as Markdown, or an empty string if the grid does not vary the gate."""
    findings = gate_findings(run)
    if not sweeps(run):
        return ""
    count = {verdict: sum(one.verdict == verdict for one in findings) for verdict in (AGREES, DISAGREES, UNDECIDED)}
    parts = [
        f"Compared with the paper's section 'Gate Control Ablation' and Figure 4: {count[AGREES]} comparisons agree, "
        f"{count[DISAGREES]} disagree, {count[UNDECIDED]} are undecided. A difference is in points of F1 between runs "
        "with the same seed, with its 95 % interval (Student's t). It agrees or disagrees only if the whole interval "
        "does. There is no correction for multiple comparisons.",
        markdown_table(
            ["variants", "task", "claim of the paper", "difference [95 %]", "verdict"],
            [[one.sweep, one.task, one.claim, one.measured, one.verdict] for one in findings],
        ),
    ]
    if gates := dynamic_gates(run, output):
        parts += [
            "Dynamic gates of the queries about an image over all seeds, next to the "
            f"{paper()['gate']['medians']['source']}:",
            markdown_table(
                ["variants", "task", "queries", "median", "the authors' median"],
                [
                    [
                        one.sweep,
                        one.task,
                        str(len(one.values)),
                        f"{gate_summary(one.values)['median']:.3f}",
                        "-" if one.published is None else f"{one.published:.3f}",
                    ]
                    for one in gates
                ],
            ),
        ]
    parts += [f"![{name}]({name})" for name in figures]
    return "\n\n".join(parts)


def _titles(gates: Sequence[DynamicGates]) -> list[str]:
    has_several_sweeps = len({one.sweep for one in gates}) > 1
    return [f"{one.task}, {one.sweep}" if has_several_sweeps else one.task for one in gates]


def _draw_sweeps(run: GridRun, found: Sequence[Sweep], path: Path) -> None:
    """Draw a panel per sweep: F1 against the fixed gate by task, and the F1 of the dynamic gate as a dashed line."""
    figure = new_figure(max(6.0, 4.6 * len(found)), 4.4)
    panels = figure.subplots(1, len(found), squeeze=False, sharey=True)[0]
    for axes, sweep in zip(panels, found, strict=True):
        gates = [gate for gate, lines in sweep.fixed.items() if lines]
        for number, one in enumerate(run.scored):
            color = series_color(number)
            shift = 0.05 * (number - (len(run.scored) - 1) / 2)
            places = [place + shift for place in range(len(gates))]  # equal distances, so that 0.02 and 1 are readable
            scores = [sweep.f1(gate, one.key) for gate in gates]
            means = [Interval.of(values).mean for values in scores]
            marker = MARKERS[number % len(MARKERS)]
            axes.plot(places, means, color=color, marker=marker, markersize=4.5, label=one.title)
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
        clean_axes(axes)
        axes.set_xticks(range(len(gates)), [f"{gate:g}" for gate in gates])
        axes.set_xlim(-0.4, len(gates) - 0.6)
        axes.set_xlabel("fixed gate g", fontsize=9)
        axes.set_title(sweep.title, loc="left", fontsize=9)
    panels[0].set_ylabel(f"strict micro-F1 ({run.grid.first.evaluation.split} split)", fontsize=9)
    handles = [*panels[0].get_legend_handles_labels()[0], line_key("dynamic gate", DASHED)]
    add_legend(figure, handles, columns=5)
    shown = "each seed" if len(run.grid.seeds) < MIN_SEEDS else "95 % interval"
    shown = f"mean over seeds, {shown}" if len(run.grid.seeds) > 1 else "one seed"
    figure.suptitle(f"{run.grid.name}: F1 against the fixed gate ({shown})", fontsize=10)
    save_figure(figure, path, pdf=True)
