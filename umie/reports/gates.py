"""The histogram of gates in every report."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from umie.reports.style import BLUE, DOTTED, GRAY, ORANGE, add_legend, clean_axes, new_figure, panels, save_figure
from umie.scoring.gates import gate_summary

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_BINS = 30
_NARROWEST_BIN = 1e-4
_TAIL = 0.02  # share of gates at either end that a panel may omit


def draw_gates(
    gates: Mapping[str, Sequence[float]],
    path: str | Path,
    *,
    reference: Mapping[str, float] | None = None,
    vector: bool = False,
) -> None:
    """Draw ``gate_figure`` to a PNG, PDF or SVG file; with ``vector``, also to a PDF and an SVG next to it.

    Raises:
        UmieError: the file cannot be written, or its suffix is not supported.
    """
    save_figure(gate_figure(gates, reference=reference), path, vector=vector)


def gate_figure(gates: Mapping[str, Sequence[float]], *, reference: Mapping[str, float] | None = None) -> Figure:
    """Return a histogram of the gates for each title, with the median.

    Each panel has its own scale, because the gates of different tasks can differ widely. If a few outliers would leave
    most of a panel empty, they are omitted, and the title reports their number. Titles without values are skipped.

    Args:
        gates: the gate of each query about a record with media, by title, e.g. the name of a task; at least one has
            values.
        reference: published medians to draw for comparison, by title.
    """
    shown = {title: sorted(values) for title, values in gates.items() if values}
    columns = 2 if len(shown) > 1 else 1
    figure = new_figure(4.2 * columns + 0.6, 2.4 * math.ceil(len(shown) / columns) + 0.4)
    for axes, (title, values) in zip(panels(figure, len(shown), columns), shown.items(), strict=True):
        summary = gate_summary(values)
        low, high = _range(values)
        width = max(_NARROWEST_BIN, (high - low) / _BINS)
        edges = [width * step for step in range(math.floor(low / width), math.floor(high / width) + 2)]
        inside = [value for value in values if edges[0] <= value <= edges[-1]]
        stacks = [[value for value in inside if value <= 0], [value for value in inside if value > 0]]
        axes.hist(
            stacks, bins=edges, color=[GRAY, BLUE], alpha=0.85, stacked=True, label=["closed (0 or below)", "open"]
        )
        if edges[0] < 0 < edges[-1]:
            axes.axvline(0, color=GRAY, linewidth=0.8)
        axes.axvline(summary["median"], color=ORANGE, linewidth=1.6, label="median")
        published = (reference or {}).get(title)
        if published is not None:
            axes.axvline(published, label="published median", **DOTTED)
        omitted = len(values) - len(inside)
        facts = f"{len(values):,} queries, median {summary['median']:.3f}, closed {100 * summary['closed']:.1f}%"
        axes.locator_params(axis="y", nbins=4, integer=True, steps=None)
        axes.locator_params(axis="x", nbins=6, steps=None)
        outside = f", {omitted:,} outside" if omitted else ""
        clean_axes(axes, title=f"{title}\n{facts}{outside}", x="gate: weight of the image (no unit)", y="queries")
    add_legend(figure, columns=2 * columns)
    return figure


def _range(values: Sequence[float]) -> tuple[float, float]:
    """Return the range of sorted values to draw; a tail is omitted if it is wider than the range without tails."""
    tail = int(_TAIL * len(values))
    low, high = values[tail], values[-1 - tail]
    width = max(high - low, _NARROWEST_BIN)
    return (values[0] if low - values[0] <= width else low, values[-1] if values[-1] - high <= width else high)
