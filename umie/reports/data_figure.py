"""The figure of data statistics, which compares splits."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

from umie.audit.statistics import Statistics
from umie.reports.style import add_legend, clean_axes, color_key, new_figure, panels, save_figure, series_color

MAX_BARS = 16  # labels per task; the others share one bar
_COLUMNS = 2
_LABEL_LENGTH = 28
_PANEL = 3.4  # inches: height of a panel
_MARGIN, _ROW = 1.2, 0.4  # inches: title and axis of a panel, and a split in the panel of images


def write_figure(path: Path, splits: Mapping[str, Statistics]) -> None:
    """Draw the labels, lengths, items and images of several splits by name, as shares of each split."""
    tasks = sorted({task for statistics in splits.values() for task in statistics.labels})
    ranked = {}
    for task in tasks:
        total = sum((Counter(statistics.labels.get(task)) for statistics in splits.values()), Counter())
        ranked[task] = [label for label, _ in total.most_common(MAX_BARS)]
    bars = [max(_PANEL, 0.13 * (len(ranked[task]) + 1) * (len(splits) + 1) + 0.8) for task in tasks]
    sizes = [*bars, _PANEL, _PANEL, _MARGIN + _ROW * (len(splits) + 1)]
    heights = [max(sizes[row : row + _COLUMNS]) for row in range(0, len(sizes), _COLUMNS)]
    figure = new_figure(13, sum(heights))
    axes = panels(figure, len(sizes), _COLUMNS, height_ratios=heights)
    for axis, (task, shown) in zip(axes, ranked.items(), strict=False):
        _labels(axis, splits, task, shown)
    _words(axes[-3], splits)
    _items(axes[-2], splits)
    _images(axes[-1], splits, num_rows=int((heights[-1] - _MARGIN) / _ROW))
    handles = [
        color_key(series_color(number), f"{name} ({statistics.records:,} records)")
        for number, (name, statistics) in enumerate(splits.items())
    ]
    add_legend(figure, handles, loc="outside upper center", columns=4, fontsize=10)
    save_figure(figure, path)


def _labels(axis: Any, splits: Mapping[str, Statistics], task: str, shown: Sequence[str]) -> None:
    hidden = {label for statistics in splits.values() for label in statistics.labels.get(task, {})} - set(shown)
    names = [label if len(label) <= _LABEL_LENGTH else label[: _LABEL_LENGTH - 1] + "…" for label in shown]
    width = 0.8 / len(splits)
    for number, statistics in enumerate(splits.values()):
        counts = statistics.labels.get(task, Counter())
        total = sum(counts.values()) or 1
        shares = [100 * counts[label] / total for label in shown]
        if hidden:
            shares.append(100 * sum(counts[label] for label in hidden) / total)
        places = [row + (number - (len(splits) - 1) / 2) * width for row in range(len(shares))]
        axis.barh(places, shares, height=width, color=series_color(number))
    if hidden:
        names.append(f"({len(hidden)} other labels)")
    axis.set_yticks(range(len(names)), names)
    axis.invert_yaxis()
    clean_axes(axis, grid="x", title=task.upper(), x="% of the task's labels")


def _words(axis: Any, splits: Mapping[str, Statistics]) -> None:
    longest = max(_percentile(statistics.lengths["words"], 0.995) for statistics in splits.values())
    width = max(1, math.ceil((longest + 1) / 40))
    edges = list(range(0, longest + 1 + width, width))
    for number, statistics in enumerate(splits.values()):
        counts = [0] * (len(edges) - 1)
        for length, count in statistics.lengths["words"].items():
            counts[min(length // width, len(counts) - 1)] += count
        shares = [100 * count / (statistics.records or 1) for count in counts]
        axis.stairs(shares, edges, color=series_color(number), linewidth=1.6)
    bins = f", {width} per bin" if width > 1 else ""
    clean_axes(axis, title="Lengths", x=f"words per text{bins}", y="% of records")
    axis.margins(x=0)


def _items(axis: Any, splits: Mapping[str, Statistics]) -> None:
    """Draw the number of annotated items per record, of the most frequent kind."""
    kinds = ("entities", "relations", "events")
    kind = max(kinds, key=lambda name: sum(statistics.items[name] for statistics in splits.values()))
    most = max(_percentile(statistics.lengths[kind], 0.995) for statistics in splits.values())
    most = min(max(most, 1), 12)
    longer = any(length > most for statistics in splits.values() for length in statistics.lengths[kind])
    width = 0.8 / len(splits)
    for number, statistics in enumerate(splits.values()):
        counts = [0] * (most + 1)
        for length, count in statistics.lengths[kind].items():
            counts[min(length, most)] += count
        places = [value + (number - (len(splits) - 1) / 2) * width for value in range(most + 1)]
        shares = [100 * count / (statistics.records or 1) for count in counts]
        axis.bar(places, shares, width, color=series_color(number))
    axis.set_xticks(range(most + 1), [*map(str, range(most)), f"{most}+" if longer else str(most)])
    clean_axes(axis, title="Annotation", x=f"{kind} per record", y="% of records")


def _images(axis: Any, splits: Mapping[str, Statistics], num_rows: int) -> None:
    """Draw the share of records with an image; the rows after the splits have room for the legend."""
    names = [name if len(name) <= _LABEL_LENGTH else f"…{name[1 - _LABEL_LENGTH :]}" for name in splits]
    rows = range(len(names))
    left = [0.0] * len(names)
    summaries = [statistics.summary() for statistics in splits.values()]
    checked = summaries[0]["images"]["checked"]
    parts = {"found": ("0.3", ""), "missing": ("white", "////")} if checked else {"named": ("0.3", "")}
    for part, (color, hatch) in parts.items():  # grays, because colors identify splits
        shares = [100 * (summary["images"][part] or 0) / (summary["records"] or 1) for summary in summaries]
        style: dict[str, Any] = {"facecolor": color, "edgecolor": "0.3", "hatch": hatch}
        axis.barh(rows, shares, left=left, label=part if checked else "named, not checked", **style)
        left = [start + share for start, share in zip(left, shares, strict=True)]
    axis.barh(rows, [100 - share for share in left], left=left, facecolor="0.85", edgecolor="0.3", label="no image")
    axis.set_yticks(rows, names)
    axis.set_ylim(max(num_rows, len(names) + 1) - 0.5, -0.5)
    axis.set_xlim(0, 100)
    clean_axes(axis, grid="x", title="Images", x="% of records")
    axis.legend(loc="lower center", ncols=3, fontsize=8, frameon=False)


def _percentile(histogram: Mapping[int, int], share: float) -> int:
    values = sorted(histogram)
    counts = accumulate(histogram[value] for value in values)
    enough = share * sum(histogram.values())
    return next((value for value, count in zip(values, counts, strict=True) if count >= enough), 1)
