"""Figures of scores: the F1 and interval of each measure and of each label."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from umie.errors import UmieError
from umie.reports.style import BLUE, GRAY, LIGHT_BLUE, ORANGE, add_legend, clean_axes, new_figure, panels, save_figure
from umie.scoring.report import Line, Report

_ROW = 0.23  # inches
_TITLE = 0.75  # inches that a panel needs in addition to its rows
_MOST_LABELS = 30


def draw_scores(report: Report, path: str | Path) -> None:
    """Draw the F1 and 95% interval of each measure, one panel per task.

    For a task that is scored by modality, all measures are drawn for all records, and the main measure for each
    modality. If the report compares two systems, both are drawn. The file is a PNG, PDF or SVG.

    Raises:
        UmieError: the report has no scores, or the file cannot be written.
    """
    shown = _panels(report)
    if not shown:
        raise UmieError(f"{path}: no scores to draw: omit the figure, or use predictions with offsets")
    figure, all_axes = _figure([len(rows) for _, rows in shown], 1 if len(shown) == 1 else 2)
    for axes, (title, rows) in zip(all_axes, shown, strict=True):
        for place, (_, line) in enumerate(rows):
            f1, (low, high) = line.score.f1, line.interval
            axes.plot(line.baseline_f1, place + 0.24, "^", color=GRAY, markersize=4.5, label="baseline")
            values = [f"{f1:.3f}"]
            if line.versus is not None:
                axes.plot(line.versus.other, place - 0.2, "s", color=ORANGE, markersize=4, label="F1 of B")
                values.append(f"{line.versus.other:.3f}")
            # a percentile interval may exclude the estimate, and matplotlib rejects negative whiskers
            reach = [[max(0.0, f1 - low)], [max(0.0, high - f1)]]
            label = "F1 with 95% interval" if line.versus is None else "F1 of A with 95% interval"
            style: dict[str, Any] = {"color": BLUE, "markersize": 4.5, "capsize": 2, "linewidth": 1.2}
            axes.errorbar(f1, place, xerr=reach, fmt="o", label=label, **style)
            axes.text(1.04, place, " / ".join(values), va="center", fontsize=8)
        axes.set_yticks(range(len(rows)), [name for name, _ in rows], fontsize=8)
        _finish(axes, len(rows), title)
    add_legend(figure)
    save_figure(figure, path)


def draw_labels(report: Report, path: str | Path) -> bool:
    """Draw the F1 and interval of each label, most frequent in gold first; return False if there are no labels."""
    lines = [line for line in report.main_lines() if line.labels]
    if not lines:
        return False
    figure, all_axes = _figure([min(_MOST_LABELS, len(line.labels)) for line in lines], 1)
    for axes, line in zip(all_axes, lines, strict=True):
        labels = sorted(line.labels.items(), key=lambda item: (-item[1][0].gold, item[0]))[:_MOST_LABELS]
        for place, (_, (score, (low, high))) in enumerate(labels):
            f1 = score.f1
            axes.barh(place, f1, height=0.7, color=LIGHT_BLUE, alpha=0.8 if score.gold else 0.3)
            reach = [[max(0.0, f1 - low)], [max(0.0, high - f1)]]
            axes.errorbar(f1, place, xerr=reach, fmt="none", ecolor="#222222", elinewidth=0.9, capsize=2.5)
            axes.text(1.04, place, f"{f1:.3f}", va="center", fontsize=8)
        axes.set_yticks(range(len(labels)), [f"{label} ({score.gold})" for label, (score, _) in labels], fontsize=8)
        omitted = len(line.labels) - len(labels)
        more = f", the {_MOST_LABELS} most frequent of {len(line.labels)} labels" if omitted else ""
        _finish(axes, len(labels), f"{line.task.upper()}, {line.measure}, {line.modality}{more}")
    all_axes[-1].set_xlabel("F1 with 95% interval; in parentheses: items in gold", fontsize=9)
    save_figure(figure, path)
    return True


def _panels(report: Report) -> list[tuple[str, list[tuple[str, Line]]]]:
    """Return the title and the named lines of each panel."""
    found: dict[str, tuple[str, list[tuple[str, Line]]]] = {}
    for task, modality, lines in report.parts():
        if task in found:
            main = lines[0]
            found[task][1].append((f"{main.name}, {modality} ({main.records})", main))
        else:
            title = f"{task.upper()}, {modality}, {lines[0].records:,} records"
            found[task] = (title, [(line.name, line) for line in lines])
    return list(found.values())


def _figure(rows: list[int], columns: int) -> tuple[Any, list[Any]]:
    """Return a figure with one panel per number of rows, and its axes."""
    heights = [_TITLE + _ROW * max(rows[first : first + columns]) for first in range(0, len(rows), columns)]
    figure = new_figure(5.2 * columns + (2.0 if columns == 1 else 0.0), sum(heights) + 0.4)
    return figure, panels(figure, len(rows), columns, height_ratios=heights)


def _finish(axes: Any, rows: int, title: str) -> None:
    axes.set_ylim(rows - 0.4, -0.6)
    axes.set_xlim(-0.03, 1.03)
    axes.set_xticks([0, 0.2, 0.4, 0.6, 0.8, 1])
    clean_axes(axes, grid="x", title=title)
