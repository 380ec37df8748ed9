"""The histogram of gates in every report."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from umie.evaluation.gates import gate_summary
from umie.reports.style import (
    BLUE,
    DOTTED,
    GRAY,
    ORANGE,
    add_legend,
    clean_axes,
    limit_ticks,
    new_figure,
    save_figure,
)

_BINS = 30
_NARROWEST_BIN = 1e-4
_TAIL = 0.02  # share of gates at either end that a panel may omit


def draw_gates(
    gates: Mapping[str, Sequence[float]],
    path: str | Path,
    *,
    reference: Mapping[str, float] | None = None,
    pdf: bool = False,
) -> None:
    """Draw a histogram of the gates for each title, with the median.

    Each panel has its own scale, because the gates of different tasks can differ widely. If a few outliers would leave
    most of a panel empty, they are omitted, and the title reports their number.

    Args:
        gates: the gate of each query about an image, by title, e.g. the name of a task. Titles without values are
            skipped; at least one must have values.
        path: the PNG, PDF or SVG file to write.
        reference: published medians to draw for comparison, by title.
        pdf: also write a PDF next to the file.

    Raises:
        UmieError: the file cannot be written, or its suffix is not supported.
    """
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
        stacks = [[value for value in inside if value <= 0], [value for value in inside if value > 0]]
        axes.hist(stacks, bins=edges, color=[GRAY, BLUE], alpha=0.85, stacked=True, label=["closed", "open"])
        if edges[0] < 0 < edges[-1]:
            axes.axvline(0, color=GRAY, linewidth=0.8)
        axes.axvline(summary["median"], color=ORANGE, linewidth=1.6, label="median")
        published = (reference or {}).get(title)
        if published is not None:
            axes.axvline(published, label="published median", **DOTTED)
        omitted = len(values) - len(inside)
        facts = f"{len(values):,} queries, median {summary['median']:.3f}, closed {100 * summary['closed']:.1f} %"
        axes.set_title(f"{title}\n{facts}{f', {omitted:,} outside' if omitted else ''}", loc="left", fontsize=9)
        limit_ticks(axes.yaxis, 4, integer=True)
        limit_ticks(axes.xaxis, 6)
        clean_axes(axes)
    for axes in list(panels):
        axes.set_visible(False)
    add_legend(figure, loc="outside lower right", columns=4)
    figure.supxlabel("gate (closed: 0 or below)", fontsize=9, x=0.02, ha="left")
    figure.supylabel("queries about an image", fontsize=9)
    save_figure(figure, path, pdf=pdf)


def _range(values: Sequence[float]) -> tuple[float, float]:
    """Return the range of sorted values to draw; a tail is omitted if it is wider than the range without tails."""
    tail = int(_TAIL * len(values))
    low, high = values[tail], values[-1 - tail]
    width = max(high - low, _NARROWEST_BIN)
    return (values[0] if low - values[0] <= width else low, values[-1] if values[-1] - high <= width else high)
