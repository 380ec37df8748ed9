"""The figure of a grid: a bar for each variant and task, a dot for each seed, a line for each ceiling."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from pathlib import Path

from umie.experiments.reference import joined
from umie.experiments.scheduler import GridRun
from umie.experiments.summary import MEAN, Row, mean_ceiling, score, title
from umie.files import atomic_write

LETTERS = 12  # of the legend, in an inch
LINE = 0.17  # inches of height that a line of the legend takes


def draw(run: GridRun, table: Sequence[Row], path: Path) -> None:
    """Draw the mean of each variant and task as a bar, each seed as a dot, each ceiling as a line."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    names = [*(one.key for one in run.scored), *([MEAN] if len(run.mean_over) > 1 else [])]
    shown = [row for row in table if row.lines]
    inches = max(4.8, 1.6 + 1.7 * len(names))
    labels = [textwrap.fill(row.variant, int(inches * LETTERS)) for row in shown]
    longest = max((len(line) for label in labels for line in label.splitlines()), default=1)
    columns = max(1, min(3, len(shown) + 1, int(inches * LETTERS) // (longest + 6)))
    lines = sum(label.count("\n") + 1 for label in labels) / columns
    figure = Figure(figsize=(inches, 4.2 + LINE * max(0.0, lines - 3)), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    width = 0.8 / max(1, len(shown))
    for index, row in enumerate(shown):
        places = [place - 0.4 + (index + 0.5) * width for place in range(len(names))]
        means = [row.scores[name].mean for name in names]
        axes.bar(places, means, width * 0.92, label=labels[index], color=f"C{index}", alpha=0.75)
        for place, name in zip(places, names, strict=True):
            interval = row.scores[name]
            if not math.isnan(interval.half_width):
                low, high = max(0.0, interval.mean - interval.half_width), min(1.0, interval.mean + interval.half_width)
                axes.plot([place, place], [low, high], color="black", linewidth=0.8, alpha=0.5)
            values = [score(line, name, run.mean_over) for line in row.lines]
            axes.plot([place] * len(values), values, "o", color="black", markersize=3)
    if run.ceilings:
        ceilings = [mean_ceiling(run) if name == MEAN else run.ceilings.get(name) for name in names]
        label: str | None = "ceiling of text alone"
        for place, value in enumerate(ceilings):
            if value is not None:
                axes.plot([place - 0.45, place + 0.45], [value, value], "--", color="black", linewidth=1.2, label=label)
                label = None
    for (published, source, printed), marker in zip(joined(run.grid.reference, run.scored), "DsvP^*" * 9, strict=False):
        marked = [(place, value) for place, value in enumerate(printed) if value is not None]
        label = f"{published} ({source.split(':')[0]})"
        places, heights = [place + 0.44 for place, _ in marked], [value for _, value in marked]
        axes.plot(places, heights, marker, color="black", markerfacecolor="none", markersize=5, label=label)
    axes.set_xticks(range(len(names)), [_broken(title(run, name)) for name in names])
    axes.set_ylim(0, 1.03)
    axes.set_ylabel(f"strict micro-F1 ({run.grid.first.evaluation.split} split)")
    drawn = (
        "mean over seeds (bars) with 95 % interval (lines), each seed (dots)" if len(run.grid.seeds) > 1 else "one seed"
    )
    axes.set_title(f"{run.grid.name}: {drawn}", fontsize=10)
    axes.grid(axis="y", alpha=0.3)
    axes.set_axisbelow(True)
    if shown:
        axes.legend(fontsize=8, ncols=columns, loc="upper center", bbox_to_anchor=(0.5, -0.13))
    with atomic_write(path, "wb") as file:
        figure.savefig(file, format="png", dpi=150)


def _broken(name: str) -> str:
    """Return a title in lines: a data set, its task, and what stands in brackets."""
    first, *rest = name.replace(" (", "\n(").replace(" [", "\n[").split("\n")
    return "\n".join([*first.split(" "), *rest])
