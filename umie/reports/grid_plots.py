"""Further figures of a grid's page: differences with intervals, cost against F1, and learning curves."""

from __future__ import annotations

import math
import statistics
import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from umie.experiments.statistics import Comparison
from umie.experiments.summary import MEAN, Row
from umie.reports.style import (
    BLUE,
    DASHED,
    GRAY,
    LIGHT_BLUE,
    ORANGE,
    add_legend,
    clean_axes,
    new_figure,
    panels,
    series_color,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

WIDTH = 4.6  # inches, so that the texts are readable on a phone
LABEL_WIDTH = 26  # characters
MIN_POINTS = 3  # of a curve that is drawn without markers
MAX_NAMED = 12  # variants that a figure names

Curve = Sequence[tuple[float, float]]
"""Values by training step."""


def difference_figure(found: Sequence[Comparison], title: str) -> Figure:
    """Return the differences of one task with their intervals; those that are not distinguishable from 0 are gray."""
    labels = [textwrap.fill(f"{one.variant} − {one.against}", LABEL_WIDTH) for one in found]
    height = sum(0.14 + 0.14 * (label.count("\n") + 1) for label in labels)
    figure = new_figure(WIDTH, height + 0.9)
    (axes,) = panels(figure, 1, 1)
    for place, one in enumerate(found):
        color = (BLUE if one.difference > 0 else ORANGE) if one.is_significant else GRAY
        state = one.words[one.difference < 0] if one.is_significant else "not distinguishable"
        if one.interval is not None:
            axes.plot([100 * end for end in one.interval], [place] * 2, color=color, linewidth=1.6)
        axes.plot(100 * one.difference, place, "o", color=color, markersize=4.5, label=state)
    axes.axvline(0, **{**DASHED, "linewidth": 0.8})
    axes.set_yticks(range(len(labels)), labels)
    axes.set_ylim(len(labels) - 0.4, -0.6)
    clean_axes(axes, grid="x", title=title, x="difference in points of F1, with its 95% interval")
    axes.tick_params(axis="y", length=0)
    add_legend(figure)
    return figure


def costs(table: Sequence[Row]) -> dict[str, tuple[float, float]]:
    """Return the mean training time in seconds and the mean F1 of each variant that has results."""
    return {
        row.variant: (statistics.mean(line["seconds"]["train"] for line in row.lines), row.scores[MEAN].mean)
        for row in table
        if row.lines
    }


def pareto_front(points: Mapping[str, tuple[float, float]]) -> list[str]:
    """Return the names of the points (cost, score) that no other one beats in one without losing in the other.

    They are sorted by cost.
    """
    front: list[str] = []
    best = -math.inf
    for name, (_, value) in sorted(points.items(), key=lambda one: (one[1][0], -one[1][1])):
        if value > best:
            front.append(name)
            best = value
    return front


def cost_figure(points: Mapping[str, tuple[float, float]]) -> Figure:
    """Return the F1 of the variants against their training time, with the Pareto front; ``points`` are ``costs``."""
    front = pareto_front(points)
    figure = new_figure(WIDTH, 3.4)
    (axes,) = panels(figure, 1, 1)
    axes.step(
        *zip(*(points[name] for name in front), strict=True), where="post", color=LIGHT_BLUE, label="Pareto front"
    )
    for name, (seconds, f1) in points.items():
        is_best = name in front
        axes.plot(seconds, f1, "o", color=BLUE if is_best else GRAY, markersize=5)
        if is_best or len(points) <= MAX_NAMED:
            shown = textwrap.shorten(name, 40, placeholder="…")
            axes.annotate(shown, (seconds, f1), (4, 4), textcoords="offset points", fontsize=7)
    times = [seconds for seconds, _ in points.values()]
    if min(times) > 0 and max(times) > 10 * min(times):
        axes.set_xscale("log")
    axes.margins(0.15)
    clean_axes(axes, title="Cost against F1", x="training time (s, mean over seeds)", y=f"F1 ({MEAN})")
    add_legend(figure)
    return figure


def curve_figure(curves: Mapping[str, Sequence[Curve]], title: str, y: str) -> Figure:
    """Return the curves of variants: the mean over seeds as a line, and each seed as a thin one."""
    figure = new_figure(WIDTH, 3.4 + 0.16 * min(len(curves), MAX_NAMED))
    (axes,) = panels(figure, 1, 1)
    for number, (name, own) in enumerate(curves.items()):
        color = series_color(number)
        values: dict[float, list[float]] = {}
        for curve in own:
            for step, value in curve:
                values.setdefault(step, []).append(value)
            if len(own) > 1:
                axes.plot(*zip(*curve, strict=True), color=color, linewidth=0.5, alpha=0.5)
        means = sorted((step, statistics.mean(each)) for step, each in values.items() if len(each) == len(own))
        if means:
            label = textwrap.shorten(name, 50, placeholder="…") if number < MAX_NAMED else None
            marker = "o" if len(means) < MIN_POINTS else ""
            axes.plot(*zip(*means, strict=True), color=color, linewidth=1.5, marker=marker, markersize=4, label=label)
    clean_axes(axes, title=title, x="training step (updates of the weights)", y=y)
    axes.locator_params(axis="x", nbins=6, integer=True)
    add_legend(figure, columns=1 if any(len(name) > 25 for name in curves) else 2)
    return figure
