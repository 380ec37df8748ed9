"""The table of a grid: its variants with ceilings, baselines and published scores, and what their intervals support."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from umie.experiments.comparison import ALPHA, BySeed, Comparison, compare
from umie.experiments.summary import MEAN, GridLike, Row, complete_mean, health_mean, rows, title
from umie.reports.tables import markdown_table, markdown_text


def summary(run: GridLike, table: Sequence[Row]) -> tuple[list[str], list[list[str]], list[list[str]]]:
    """Return the header of the main table, its rows of ceilings and published scores, and its rows of variants."""
    keys = [one.key for one in run.scored]
    diagnostics = ["gate", "gate closed", "visual gradient", "parameters", "train s"]
    header = ["variant", "seeds", *(one.title for one in run.scored), MEAN, *diagnostics]

    def given_row(name: str, values: Sequence[float | None]) -> list[str]:
        mean = complete_mean(dict(zip(keys, values, strict=True)), run.mean_over)
        shown = ("" if value is None else f"{value:.3f}" for value in [*values, mean])
        return [name, "", *shown, *[""] * len(diagnostics)]

    given = [given_row("text-only ceiling", [run.ceilings.get(key) for key in keys])] if run.ceilings else []
    if run.baselines:
        given.append(given_row("baseline without a model", [run.baselines.get(key, ("", None))[1] for key in keys]))
    given += [given_row(one.label, one.values) for one in run.references]
    measured = []
    for row in table:
        lines = row.lines
        gate, closed, gradient = (health_mean(lines, key) for key in ("gate_mean", "gate_closed", "visual_gradient"))
        cells = [row.variant, str(len(lines)), *(str(row.scores[name]) for name in [*keys, MEAN])]
        cells += ["-" if gate is None else f"{gate:.2f}", "-" if closed is None else f"{closed:.0%}"]
        cells += ["-" if gradient is None else f"{gradient:.2g}", f"{lines[0]['parameters']:,}" if lines else "-"]
        cells += [f"{statistics.mean(line['seconds']['train'] for line in lines):.0f}" if lines else "-"]
        measured.append(cells)
    return header, given, measured


def comparisons(run: GridLike, counts: Mapping[str, BySeed]) -> str:
    """Return the paired comparisons of the variants, and which of them are above the baseline, as Markdown."""
    parts = []
    if found := compare(run, counts):
        parts.append(
            "The difference in F1, in points, over the seeds and records that both variants have. Interval and p "
            "account for both sources of chance, seeds (Student's t) and records (paired bootstrap); p is corrected "
            f"for the number of comparisons (Holm; {len(found)}). *Better* and *worse*: p < {ALPHA}."
        )
        if any(one.num_seeds == 1 for one in found):
            parts.append("Comparisons of a single seed do not include the variation between seeds.")
        parts.append(compared_table(found))
    measured = [row for row in rows(run) if row.lines] if run.baselines else []
    if measured:
        parts.append("A variant is above the baseline if the whole interval of every seed is above it.")
        parts.append(
            "\n".join(f"- {markdown_text(row.variant)}: {_above_baselines(run, row.lines)}" for row in measured)
        )
    return "\n\n".join(parts)


def compared_table(found: Sequence[Comparison]) -> str:
    """Return comparisons as a Markdown table."""
    header = ["variant", "against", "task", "seeds", "difference [95%]", "p", "the variant is"]
    body = [
        [one.variant, one.against, one.task, one.num_seeds, _points(one), _p(one.adjusted), one.verdict]
        for one in found
    ]
    return markdown_table(header, body)


def _points(one: Comparison) -> str:
    if math.isnan(one.half_width):
        return f"{100 * one.difference:+.1f}"
    low, high = one.difference - one.half_width, one.difference + one.half_width
    return f"{100 * one.difference:+.1f} [{100 * low:+.1f}, {100 * high:+.1f}]"


def _p(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def _above_baselines(run: GridLike, lines: Sequence[Mapping[str, Any]]) -> str:
    above: dict[str, int] = {
        title(run, key): sum(line["metrics"][key]["interval"][0] > f1 for line in lines)
        for key, (_, f1) in run.baselines.items()
    }
    yes = ", ".join(task for task, count in above.items() if count == len(lines))
    no = ", ".join(f"{task} ({count} of {len(lines)} seeds)" for task, count in above.items() if count < len(lines))
    return "; ".join(part for part in (yes and f"above the baseline on {yes}", no and f"not shown on {no}") if part)
