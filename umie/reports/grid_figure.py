"""The figure of a grid: a panel per scored task with a row per variant and per published system."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from umie.experiments.grid_results import GridResults
from umie.experiments.summary import MEAN, GridLike, Row, complete_mean, drawable_interval, score, title
from umie.reports.style import GRAY, LIGHT_BLUE, ORANGE, add_legend, clean_axes, new_figure, panels, save_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MAX_COLUMNS = 5
LABEL_WIDTH = 34  # characters
CHARACTER, LINE, PANEL = 0.066, 0.15, 2.0  # inches: width of a character, height of a line, width of a panel
MIN_WIDTH = 4.6  # inches, for the legend


def draw_grid(run: GridResults, table: Sequence[Row], path: Path, *, vector: bool = False) -> None:
    """Draw ``grid_figure`` with all scored tasks and their mean to a file; see ``save_figure``."""
    figure = grid_figure(run, table, panel_names(run))
    seeds = _plural(len({cell.seed for cell in run.cells}), "seed")
    figure.suptitle(f"{run.name}: {run.grid.f1_name} on the {run.grid.split} split ({seeds})", fontsize=10)
    save_figure(figure, path, vector=vector)


def panel_names(run: GridLike) -> list[str]:
    """Return the keys of the scored tasks, and the mean if it averages several."""
    return [*(one.key for one in run.scored), *([MEAN] if len(run.mean_over) > 1 else [])]


def grid_figure(run: GridLike, table: Sequence[Row], names: Sequence[str]) -> Figure:
    """Return a figure with a panel for each name: the variants as bars, with seeds, interval, ceiling and references.

    Intervals are drawn from three seeds on. Variants without results are marked as failed or not run.
    """
    references = run.references
    labels = [*(_label(run, row) for row in table), *(one.label for one in references)]
    labels = [textwrap.fill(label, LABEL_WIDTH) for label in labels]
    num_rows = math.ceil(len(names) / MAX_COLUMNS)
    columns = math.ceil(len(names) / num_rows)
    lines = [line for label in labels for line in label.splitlines()]
    row_height = LINE * (0.8 + max(label.count("\n") + 1 for label in labels))
    width = max(MIN_WIDTH, PANEL * columns + CHARACTER * max(map(len, lines), default=1) + 0.4)
    figure = new_figure(width, num_rows * (row_height * len(labels) + 0.6) + 0.9)
    ceilings = {**run.ceilings, MEAN: complete_mean(run.ceilings, run.mean_over)}
    failed = {cell.variant for cell in run.cells if cell.hash in run.results}
    printed: list[dict[str, float | None]] = [
        dict(zip((one.key for one in run.scored), reference.values, strict=True)) for reference in references
    ]
    for scores in printed:
        scores[MEAN] = complete_mean(scores, run.mean_over)
    for axes, name in zip(panels(figure, len(names), columns, sharey=True), names, strict=True):
        for place, row in enumerate(table):
            values = [score(line, name, run.mean_over) for line in row.lines]
            _draw_variant(axes, place, values, "failed" if row.variant in failed else "not run")
        for place, scores in enumerate(printed, len(table)):
            if (value := scores[name]) is not None:
                axes.plot(value, place, "D", color="black", markerfacecolor="none", markersize=5, label="published")
                axes.text(1.03, place, f"{value:.3f}", va="center", fontsize=8)
        if (ceiling := ceilings.get(name)) is not None:
            bounds = [-0.5, len(table) - 0.5]
            axes.plot([ceiling] * 2, bounds, "--", color=ORANGE, linewidth=1.3, label="text-only ceiling")
        axes.set_xlim(0, 1.01)
        axes.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0", "", "0.5", "", "1"])
        axes.set_ylim(len(labels) - 0.4, -0.6)
        axes.set_yticks(range(len(labels)), labels)
        clean_axes(axes, grid="x", title=title(run, name))
        axes.tick_params(axis="y", length=0)
    add_legend(figure, columns=5 if columns > 2 else 2)
    return figure


def _draw_variant(axes: Any, place: int, values: Sequence[float], state: str) -> None:
    if not values:
        axes.text(0.02, place, state, va="center", fontsize=8, color=GRAY, style="italic")
        return
    mean = sum(values) / len(values)
    axes.barh(place, mean, 0.7, color=LIGHT_BLUE, label="mean over seeds" if len(values) > 1 else "single seed")
    if (interval := drawable_interval(values)) is not None:
        reach = [[max(0.0, mean - interval[0])], [max(0.0, interval[1] - mean)]]  # without rounding errors
        style: dict[str, Any] = {"ecolor": "black", "elinewidth": 1, "capsize": 2.5}
        axes.errorbar(mean, place, xerr=reach, fmt="none", label="95% interval", **style)
    if len(values) > 1:
        axes.plot(values, [place] * len(values), "o", color="black", markersize=2.8, label="each seed", clip_on=False)
    axes.text(1.03, place, f"{mean:.3f}", va="center", fontsize=8)


def _label(run: GridLike, row: Row) -> str:
    planned = sum(cell.variant == row.variant for cell in run.cells)
    is_partial = 0 < len(row.lines) < planned
    return f"{row.variant} ({len(row.lines)} of {_plural(planned, 'seed')})" if is_partial else row.variant


def _plural(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
