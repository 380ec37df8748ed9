"""The reliability figure: the share of items that is right, by their probability."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from umie.extraction.calibration import NUM_BINS, Bin, Calibration
from umie.reports.style import BLUE, DASHED, LIGHT_BLUE, ORANGE, add_legend, clean_axes, new_figure, save_figure


def draw_calibration(found: Mapping[str, Calibration], path: str | Path, *, vector: bool = False) -> None:
    """Draw the share of right items by probability, with 95% intervals, and the number of items; a column per task.

    Args:
        found: the calibration of each task.
        path: a PNG, PDF or SVG.
        vector: also write the other formats next to it.

    Raises:
        UmieError: the suffix is not supported, or the file cannot be written.
    """
    figure = new_figure(0.6 + 3.2 * len(found), 4.4)
    grid = figure.subplots(2, len(found), squeeze=False, sharex=True, height_ratios=(3, 1))
    for column, (task, one) in enumerate(found.items()):
        top, bottom = grid[0][column], grid[1][column]
        top.plot([0, 1], [0, 1], label="calibrated", **DASHED)
        _draw(top, one.bins, BLUE, "o", "as the model says", -0.006)
        _draw(top, one.bins_after, ORANGE, "s", "with a temperature (cross-fitted)", 0.006)
        top.set_xlim(-0.02, 1.02)
        top.set_ylim(-0.02, 1.04)
        title = f"{task.upper()}: {one.items:,} items, ECE {one.error:.3f} and {one.error_after:.3f}"
        clean_axes(top, title=title, y="share that is right" if column == 0 else "")
        edges = [(place + 0.5) / NUM_BINS for place in range(NUM_BINS)]
        numbers = {own.place: own.number for own in one.bins}
        bottom.bar(edges, [numbers.get(place, 0) for place in range(NUM_BINS)], 0.92 / NUM_BINS, color=LIGHT_BLUE)
        clean_axes(bottom, title="", x="probability of the item", y="items" if column == 0 else "")
    add_legend(figure, columns=1 if len(found) == 1 else 3)
    save_figure(figure, path, vector=vector)


def _draw(axes: Any, bins: Sequence[Bin], color: str, marker: str, label: str, shift: float) -> None:
    """Draw the bins; a small shift keeps the intervals of two series apart."""
    reach = [
        [one.share - min(one.low, one.share) for one in bins],
        [max(one.high, one.share) - one.share for one in bins],
    ]
    at = [one.probability + shift for one in bins]
    style = {"color": color, "markersize": 4.5, "capsize": 2, "linewidth": 1.2, "elinewidth": 0.9}
    axes.errorbar(at, [one.share for one in bins], yerr=reach, fmt=f"{marker}-", label=label, **style)
