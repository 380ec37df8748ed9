"""Figures of an evaluated checkpoint: the gate of each task, and the F1 of each label."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path

from umie.files import atomic_write
from umie.scoring import Line, Report

_BINS = 40
_BAR = 0.26  # inches of a label
_BLUE, _RUST = "#1b6ca8", "#b5651d"


def draw_gates(gates: Mapping[str, Sequence[float]], path: str | Path) -> None:
    """Draw a histogram of the gate for each task, all on one scale, with the median; closed gates stand left of 0.

    Args:
        gates: by task, the gate of each query about an image; at least one.
        path: the PNG to write.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    shown = {task: values for task, values in gates.items() if values}
    low, high = min(map(min, shown.values())), max(map(max, shown.values()))
    width = max(0.001, (high - low) / _BINS)
    # 0 is an edge, so that no bar holds open and closed gates
    edges = [width * step for step in range(math.floor(low / width) - 1, math.ceil(high / width) + 2)]
    figure = Figure(figsize=(7.5, 0.8 + 1.5 * len(shown)), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(shown), 1, squeeze=False, sharex=True)[:, 0]
    for axis, (task, values) in zip(axes, shown.items(), strict=True):
        closed = sum(value <= 0 for value in values) / len(values)
        median = statistics.median(values)
        axis.hist(values, bins=edges, color=_BLUE, alpha=0.85)
        axis.axvline(0, color="#888888", linewidth=0.8)
        axis.axvline(median, color=_RUST, linewidth=1.6)
        title = f"{task.upper()}: {len(values):,} queries, median {median:.3f}, closed {100 * closed:.1f} %"
        axis.set_title(title, loc="left", fontsize=10)
        axis.tick_params(labelsize=8)
        axis.spines[["top", "right"]].set_visible(False)
    axes[-1].set_xlabel("gate of a query about an image (brown: median; closed: 0 or below)", fontsize=9)
    figure.supylabel("queries", fontsize=9)
    with atomic_write(path, "wb") as file:
        figure.savefig(file, format="png", dpi=130)


def draw_labels(report: Report, path: str | Path) -> bool:
    """Draw a bar with its interval for the F1 of each label, the most frequent in gold first; say whether there is any.

    Args:
        report: the scores.
        path: the PNG to write.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    parts = [line for line in headlines(report) if line.labels]
    if not parts:
        return False
    heights = [len(line.labels) + 1.5 for line in parts]
    figure = Figure(figsize=(7.5, _BAR * sum(heights) + 0.45 * len(parts) + 0.5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(parts), 1, squeeze=False, gridspec_kw={"height_ratios": heights})[:, 0]
    for axis, line in zip(axes, parts, strict=True):
        labels = sorted(line.labels.items(), key=lambda item: (-item[1][0].gold, item[0]))
        for place, (_, (score, (low, high))) in enumerate(labels):
            axis.barh(place, 100 * score.f1, height=0.7, color=_BLUE, alpha=0.85 if score.gold else 0.3)
            axis.plot([100 * low, 100 * high], [place, place], color="black", linewidth=1.1)
            axis.text(101.5, place, f"{100 * score.f1:.1f}", va="center", fontsize=7)
        names = [f"{label} ({score.gold})" for label, (score, _) in labels]
        axis.set_yticks(range(len(names)), names, fontsize=8)
        axis.set_ylim(len(names) - 0.4, -0.6)
        axis.set_xlim(0, 110)
        axis.set_xticks(range(0, 101, 20))
        axis.tick_params(axis="x", labelsize=8)
        axis.grid(axis="x", color="#e3e3e3", linewidth=0.6)
        axis.set_axisbelow(True)
        axis.spines[["top", "right"]].set_visible(False)
        axis.set_title(f"{line.task.upper()}, {line.measure}, {line.modality}", loc="left", fontsize=10)
    axes[-1].set_xlabel("F1 with 95 % interval (line); in brackets: items in gold", fontsize=9)
    with atomic_write(path, "wb") as file:
        figure.savefig(file, format="png", dpi=130)
    return True


def headlines(report: Report) -> list[Line]:
    """Return the first line of each task: its strict micro score over all records."""
    first: dict[str, Line] = {}
    for line in report.lines:
        first.setdefault(line.task, line)
    return list(first.values())
