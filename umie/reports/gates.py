"""The histogram of gates in every report."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from umie.evaluation.gates import gate_summary
from umie.reports.style import BLUE, GRAY, ORANGE, clean_axes, new_figure, save_figure

_BINS = 30
_NARROWEST_BIN = 1e-4
_TAIL = 0.02  # share of gates on either side that a panel may omit


def draw_gates(
    gates: Mapping[str, Sequence[float]], path: str | Path, *, reference: Mapping[str, float] | None = None
) -> None:
    """Draw a histogram of the gates for each title, with the median.

    Each panel has its own scale, because the gates of different tasks can lie far apart. If a few outliers would leave
    most of a panel empty, they are omitted, and the title says how many.

    Args:
        gates: by title, e.g. the name of a task, the gate of each query about an image; empty ones are skipped, at
            least one has values.
        path: the file to write: PNG, PDF or SVG.
        reference: published medians to draw for comparison, by title.

    Raises:
        UmieError: the file cannot be written, or its name has another ending.
    """
    from matplotlib.artist import Artist
    from matplotlib.ticker import MaxNLocator

    shown = {title: sorted(values) for title, values in gates.items() if values}
    columns = 2 if len(shown) > 1 else 1
    rows = math.ceil(len(shown) / columns)
    figure = new_figure(4.2 * columns + 0.6, 2.1 * rows + 0.5)
    panels = figure.subplots(rows, columns, squeeze=False).flat
    for axes, (title, values) in zip(panels, shown.items(), strict=False):
        summary = gate_summary(values)
        low, high = _range(values)
        width = max(_NARROWEST_BIN, (high - low) / _BINS)
        edges = [width * step for step in range(math.floor(low / width), math.floor(high / width) + 2)]
        inside = [value for value in values if edges[0] <= value <= edges[-1]]
        parts = [[value for value in inside if value <= 0], [value for value in inside if value > 0]]
        axes.hist(parts, bins=edges, color=[GRAY, BLUE], alpha=0.85, stacked=True, label=["closed", "open"])
        if edges[0] < 0 < edges[-1]:
            axes.axvline(0, color=GRAY, linewidth=0.8)
        axes.axvline(summary["median"], color=ORANGE, linewidth=1.6, label="median")
        published = (reference or {}).get(title)
        if published is not None:
            axes.axvline(published, color="black", linestyle=":", linewidth=1.6, label="published median")
        omitted = len(values) - len(inside)
        facts = f"{len(values):,} queries, median {summary['median']:.3f}, closed {100 * summary['closed']:.1f} %"
        axes.set_title(f"{title}\n{facts}{f', {omitted:,} outside' if omitted else ''}", loc="left", fontsize=9)
        axes.yaxis.set_major_locator(MaxNLocator(nbins=4, integer=True))
        axes.xaxis.set_major_locator(MaxNLocator(nbins=6))
        clean_axes(axes)
    for axes in list(panels):
        axes.set_visible(False)
    handles: dict[str, Artist] = {}
    for axes in figure.axes:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            handles.setdefault(label, handle)
    figure.legend(handles.values(), handles.keys(), loc="outside lower right", ncols=4, fontsize=8, frameon=False)
    figure.supxlabel("gate (closed: 0 or below)", fontsize=9, x=0.02, ha="left")
    figure.supylabel("queries about an image", fontsize=9)
    save_figure(figure, path)


def _range(values: Sequence[float]) -> tuple[float, float]:
    """Return the range of sorted values to draw; a tail is omitted if it is wider than the range without tails."""
    tail = int(_TAIL * len(values))
    low, high = values[tail], values[-1 - tail]
    width = max(high - low, _NARROWEST_BIN)
    return (values[0] if low - values[0] <= width else low, values[-1] if values[-1] - high <= width else high)
