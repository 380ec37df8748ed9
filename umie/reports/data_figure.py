"""The figure of data statistics, which compares splits."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from umie.audit.statistics import Statistics
from umie.reports.style import add_legend, clean_axes, color_key, new_figure, save_figure, series_color

MAX_BARS = 16  # labels per task; the others share one bar
_COLUMNS = 2
_LABEL_LENGTH = 28
_PANEL = 3.4  # inches: height of a panel
_MARGIN, _ROW = 1.2, 0.4  # inches: title and axis of a panel, and a split in the panel of images


def write_figure(path: Path, splits: Mapping[str, Statistics]) -> None:
    """Draw the labels, lengths, items and images of several splits side by side, as shares of each split.

    Args:
        path: the PNG, PDF or SVG file to write.
        splits: the statistics of each split by its name.
    """
    tasks = sorted({task for statistics in splits.values() for task in statistics.labels})
    panels = [*(_bars_height(splits, task) for task in tasks), _PANEL, _PANEL, _MARGIN + _ROW * (len(splits) + 1)]
    heights = [max(panels[row : row + _COLUMNS]) for row in range(0, len(panels), _COLUMNS)]
    figure = new_figure(13, sum(heights))
    grid = figure.subplots(len(heights), _COLUMNS, squeeze=False, height_ratios=heights)
    axes = list(grid.flat)
    for axis, task in zip(axes, tasks, strict=False):
        _labels(axis, splits, task)
    words, items, images, *unused = axes[len(tasks) :]
    _histogram(words, splits, "words", "words per text")
    _items(items, splits)
    _images(images, splits, num_rows=int((heights[(len(panels) - 1) // _COLUMNS] - _MARGIN) / _ROW))
    for axis in unused:
        axis.remove()
    handles = [
        color_key(series_color(number), f"{name} ({statistics.records:,} records)")
        for number, (name, statistics) in enumerate(splits.items())
    ]
    add_legend(figure, handles, loc="outside upper center", columns=4, fontsize=10)
    save_figure(figure, path)


def _bars_height(splits: Mapping[str, Statistics], task: str) -> float:
    """Return the height in inches that the bars of a task need."""
    return max(_PANEL, 0.13 * (len(_ranked(splits, task)) + 1) * (len(splits) + 1) + 0.8)


def _ranked(splits: Mapping[str, Statistics], task: str) -> list[str]:
    """Return the most frequent labels of a task over all splits."""
    total: Counter[str] = Counter()
    for statistics in splits.values():
        total.update(statistics.labels.get(task, {}))
    return [label for label, _ in total.most_common(MAX_BARS)]


def _labels(axis: Any, splits: Mapping[str, Statistics], task: str) -> None:
    shown = _ranked(splits, task)
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
    axis.set_xlabel("% of the task's labels")
    axis.set_title(task.upper())
    clean_axes(axis, grid="x")


def _histogram(axis: Any, splits: Mapping[str, Statistics], quantity: str, title: str) -> None:
    longest = max((_percentile(statistics.lengths[quantity], 0.995) for statistics in splits.values()), default=1)
    width = max(1, math.ceil((longest + 1) / 40))
    edges = list(range(0, longest + 1 + width, width))
    for number, statistics in enumerate(splits.values()):
        counts = [0] * (len(edges) - 1)
        for length, count in statistics.lengths[quantity].items():
            counts[min(length // width, len(counts) - 1)] += count
        shares = [100 * count / (statistics.records or 1) for count in counts]
        axis.stairs(shares, edges, color=series_color(number), linewidth=1.6)
    axis.set_xlabel(title + (f", {width} per bin" if width > 1 else ""))
    axis.set_ylabel("% of records")
    axis.set_title("Lengths")
    clean_axes(axis)
    axis.margins(x=0)


def _items(axis: Any, splits: Mapping[str, Statistics]) -> None:
    """Draw the number of annotated items per record, of the most frequent kind."""
    kind = max(
        ("entities", "relations", "events"),
        key=lambda name: sum(statistics.items[name] for statistics in splits.values()),
    )
    most = max((_percentile(statistics.lengths[kind], 0.995) for statistics in splits.values()), default=0)
    most = min(max(most, 1), 12)
    longer = any(length > most for statistics in splits.values() for length in statistics.lengths[kind])
    width = 0.8 / len(splits)
    for number, statistics in enumerate(splits.values()):
        counts = [0] * (most + 1)
        for length, count in statistics.lengths[kind].items():
            counts[min(length, most)] += count
        places = [value + (number - (len(splits) - 1) / 2) * width for value in range(most + 1)]
        axis.bar(
            places, [100 * count / (statistics.records or 1) for count in counts], width, color=series_color(number)
        )
    axis.set_xticks(range(most + 1), [*map(str, range(most)), f"{most}+" if longer else str(most)])
    axis.set_xlabel(f"{kind} per record")
    axis.set_ylabel("% of records")
    axis.set_title("Annotation")
    clean_axes(axis)


def _images(axis: Any, splits: Mapping[str, Statistics], num_rows: int) -> None:
    """Draw the share of records with an image; the rows after the splits have room for the legend."""
    names = [name if len(name) <= _LABEL_LENGTH else f"…{name[1 - _LABEL_LENGTH :]}" for name in splits]
    left = [0.0] * len(names)
    summaries = [statistics.summary() for statistics in splits.values()]
    checked = summaries[0]["images"]["checked"] if summaries else False
    parts = {"found": ("0.3", ""), "missing": ("white", "////")} if checked else {"named": ("0.3", "")}
    for part, (color, hatch) in parts.items():  # grays, because colors identify splits
        shares = [100 * (summary["images"][part] or 0) / (summary["records"] or 1) for summary in summaries]
        style: dict[str, Any] = {"facecolor": color, "edgecolor": "0.3", "hatch": hatch}
        axis.barh(names, shares, left=left, label=part if checked else "named, not checked", **style)
        left = [start + share for start, share in zip(left, shares, strict=True)]
    axis.barh(names, [100 - share for share in left], left=left, facecolor="0.85", edgecolor="0.3", label="no image")
    axis.set_ylim(max(num_rows, len(names) + 1) - 0.5, -0.5)
    axis.set_xlim(0, 100)
    axis.set_xlabel("% of records")
    axis.set_title("Images")
    clean_axes(axis, grid="x")
    axis.legend(loc="lower center", ncols=3, fontsize=8, frameon=False)


def _percentile(histogram: Mapping[int, int], share: float) -> int:
    total, count = sum(histogram.values()), 0
    for value in sorted(histogram):
        count += histogram[value]
        if count >= share * total:
            return value
    return 1
