"""The figure of an evaluation: F1 with its interval, for each task and each label."""

from __future__ import annotations

from pathlib import Path

from umie.errors import UmieError
from umie.files import atomic_write
from umie.scoring.report import Line, Report

_Row = tuple[str, float, tuple[float, float], float | None]  # name, F1, interval, baseline

_WIDTH = 7.5  # inches
_ROW = 0.24
_COLORS = {"score": "#1b6ca8", "label": "#7aa6c2", "baseline": "#b5651d"}


def draw(report: Report, path: str | Path) -> None:
    """Draw F1 and 95 % intervals of each task's figures, and once for each task those of the labels.

    Args:
        report: what to draw.
        path: the PNG to write.

    Raises:
        UmieError: the report has no figures.
    """
    if not report.lines:
        raise UmieError(f"{path}: there is no score to draw: leave the figure out, or predict with offsets")
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    parts = [(task, modality, lines) for task, modality, lines in report.parts()]
    drawn = [task for task, _, _ in parts]
    rows = [
        _rows(lines, with_labels=task not in drawn[:place]) for place, (task, _, lines) in enumerate(parts)
    ]  # the labels of a modality that is part of another are left out
    heights = [len(found) + 1.0 for found in rows]
    figure = Figure(figsize=(_WIDTH, _ROW * sum(heights) + 0.6 * len(parts) + 0.5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(parts), 1, squeeze=False, gridspec_kw={"height_ratios": heights})[:, 0]
    for axis, (task, modality, lines), found in zip(axes, parts, rows, strict=True):
        for place, (_, f1, (low, high), baseline) in enumerate(found):
            color = _COLORS["label" if baseline is None else "score"]
            # a percentile interval need not hold the estimate: a whisker never points backwards
            reach = [[100 * max(0.0, f1 - low)], [100 * max(0.0, high - f1)]]
            axis.errorbar(100 * f1, place, xerr=reach, fmt="o", color=color, markersize=4, capsize=2, linewidth=1.2)
            if baseline is not None:
                axis.plot(100 * baseline, place, "|", color=_COLORS["baseline"], markersize=9, markeredgewidth=2)
        axis.set_yticks(range(len(found)), [name for name, *_ in found], fontsize=8)
        axis.tick_params(axis="x", labelsize=8)
        axis.set_ylim(len(found) - 0.4, -0.6)
        axis.set_xlim(-2, 102)
        axis.grid(axis="x", color="#e3e3e3", linewidth=0.6)
        axis.set_axisbelow(True)
        axis.spines[["top", "right"]].set_visible(False)
        axis.set_title(f"{task.upper()}, {modality}, {lines[0].records} records", loc="left", fontsize=10)
    axes[-1].set_xlabel("F1 with 95 % interval; bar: baseline; pale: labels (gold items)", fontsize=9)
    with atomic_write(path, "wb") as file:
        figure.savefig(file, format="png", dpi=130)


def _rows(lines: list[Line], *, with_labels: bool) -> list[_Row]:
    rows: list[_Row] = [(line.name, line.score.f1, line.interval, line.baseline_f1) for line in lines]
    if with_labels:
        for label, (score, edges) in lines[0].labels.items():
            rows.append((f"{label} ({score.gold})", score.f1, edges, None))
    return rows
