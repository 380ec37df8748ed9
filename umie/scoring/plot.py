"""The figure of an evaluation: F1 with its interval, for each task and each label."""

from __future__ import annotations

from pathlib import Path

from umie.files import atomic_write
from umie.scoring.report import Line, Report

_WIDTH = 7.5  # inches
_ROW = 0.3
_COLOURS = {"score": "#1b6ca8", "label": "#7aa6c2", "baseline": "#b5651d"}


def draw(report: Report, path: str | Path) -> None:
    """Draw F1 and 95 % intervals of each task's figures and of the labels of its first one.

    Args:
        report: what to draw.
        path: the PNG to write.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    tasks = list(dict.fromkeys((line.task, line.split) for line in report.lines))
    rows = [_rows([line for line in report.lines if (line.task, line.split) == task]) for task in tasks]
    heights = [len(found) + 2.2 for found in rows]
    figure = Figure(figsize=(_WIDTH, _ROW * sum(heights) + 0.7), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(tasks), 1, squeeze=False, gridspec_kw={"height_ratios": heights})[:, 0]
    for axis, (task, split), found in zip(axes, tasks, rows, strict=True):
        for place, (_, f1, (low, high), baseline) in enumerate(found):
            is_label = baseline is None
            colour = _COLOURS["label" if is_label else "score"]
            # a percentile interval need not hold the estimate: a whisker never points backwards
            reach = [[100 * max(0.0, f1 - low)], [100 * max(0.0, high - f1)]]
            axis.errorbar(100 * f1, place, xerr=reach, fmt="o", color=colour, markersize=4, capsize=2, linewidth=1.2)
            if baseline is not None:
                axis.plot(100 * baseline, place, "|", color=_COLOURS["baseline"], markersize=9, markeredgewidth=2)
        axis.set_yticks(range(len(found)), [name for name, *_ in found], fontsize=8)
        axis.set_ylim(len(found) - 0.4, -0.6)
        axis.set_xlim(-2, 102)
        axis.grid(axis="x", color="#e3e3e3", linewidth=0.6)
        axis.set_axisbelow(True)
        axis.spines[["top", "right"]].set_visible(False)
        axis.set_title(f"{task.upper()}, {split}", loc="left", fontsize=10)
    axes[-1].set_xlabel("F1 (points: score with 95 % interval; bars: baseline; pale: one label of the first figure)")
    with atomic_write(path, "wb") as file:
        figure.savefig(file, format="png", dpi=150)


def _rows(lines: list[Line]) -> list[tuple[str, float, tuple[float, float], float | None]]:
    rows: list[tuple[str, float, tuple[float, float], float | None]] = [
        (
            line.figure if line.average == "micro" else f"{line.figure}, macro",
            line.score.f1,
            line.interval,
            line.baseline_f1,
        )
        for line in lines
    ]
    rows += [(f"{label} ({score.gold})", score.f1, edges, None) for label, (score, edges) in lines[0].labels.items()]
    return rows
