"""The table of a grid: its variants with ceilings, baselines and published scores, and what their intervals support."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from umie.experiments.comparison import compare, interactions, marginal_effects
from umie.experiments.statistics import ALPHA, BySeed, Comparison
from umie.experiments.summary import MEAN, GridLike, Row, complete_mean, health_mean, rows, title
from umie.reports.tables import markdown_list, markdown_table, markdown_text

if TYPE_CHECKING:
    from umie.experiments.grid_results import GridResults


def summary(run: GridLike, table: Sequence[Row]) -> tuple[list[str], list[list[str]], list[list[str]]]:
    """Return the header of the main table, its rows of ceilings and published scores, and its rows of variants."""
    keys = [one.key for one in run.scored]
    has_gate = any(health_mean(row.lines, "gate_mean") is not None for row in table)
    diagnostics = [*(["gate", "gate closed"] if has_gate else []), "visual gradient", "parameters", "train s"]
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
        if has_gate:
            cells += ["-" if gate is None else f"{gate:.2f}", "-" if closed is None else f"{closed:.0%}"]
        cells += ["-" if gradient is None else f"{gradient:.2g}", f"{lines[0]['parameters']:,}" if lines else "-"]
        cells += [f"{statistics.mean(line['seconds']['train'] for line in lines):.0f}" if lines else "-"]
        measured.append(cells)
    return header, given, measured


def page_head(results: GridResults, table: str) -> list[str]:
    """Return the first paragraphs of a page in Markdown: the question, the table, and what its words mean."""
    grid = results.grid
    num_records = sum(grid.num_records.values())
    about = (
        f"{grid.f1_name[:1].upper()}{grid.f1_name[1:]} on the {grid.split} split ({num_records} records): mean over "
        f"seeds ± half width of the 95% interval (Student's t over seeds, for three seeds or more). `{MEAN}` averages "
        f"{', '.join(title(results, key) for key in grid.mean_over)}."
    )
    meanings = [f"*{name}*: {meaning}" for name, meaning in grid.terms.items()]
    if results.baselines:
        named = "; ".join(f"{title(results, key)}: {name}" for key, (name, _) in results.baselines.items())
        meanings.append(f"*Baseline without a model*: {named}.")
    meanings += [f"*{one.title}*: published in {one.source}, not measured here." for one in results.references]
    shown = map(markdown_text, filter(None, [f"# {grid.name}", grid.question, about]))
    return [*shown, table, *map(markdown_text, meanings)]


def comparisons(run: GridLike, counts: Mapping[str, BySeed]) -> str:
    """Return the paired comparisons of the variants, and which of them are above the baseline, as Markdown."""
    parts = []
    for about, found in tests(run, counts).items():
        parts += [about, compared_table(found)]
    measured = [row for row in rows(run) if row.lines] if run.baselines else []
    if measured:
        parts.append("A variant is above the baseline if the whole interval of every seed is above it.")
        parts.append(markdown_list(f"{row.variant}: {_above_baselines(run, row.lines)}" for row in measured))
    return "\n\n".join(parts)


def tests(run: GridLike, counts: Mapping[str, BySeed]) -> dict[str, list[Comparison]]:
    """Return the comparisons of a grid, by what they are about: of variants, and of the options of several slots."""
    compared, effects, joint = compare(run, counts), marginal_effects(run, counts), interactions(run, counts)
    single = " Comparisons of a single seed do not include the variation between seeds: they are about two models."
    found = {
        "The difference in F1, in points, over the seeds and records that both variants have. Interval and p "
        "account for both sources of chance, seeds (Student's t) and records (paired bootstrap); p is corrected "
        f"for the number of comparisons (Holm; {len(compared)}), the interval is not. *Better* and *worse*: p < "
        f"{ALPHA}. Intervals are shown for three seeds or more."
        + (single if any(one.num_seeds == 1 for one in compared) else ""): compared,
        "The effect of each option: the mean difference over all options of the other slots, between cells that differ "
        f"only in this option (p corrected for their number, {len(effects)}).": effects,
        "Whether effects depend on each other: how much larger the effect of an option is together with an option of "
        f"another slot (p corrected for their number, {len(joint)}).": joint,
    }
    return {about: own for about, own in found.items() if own}


def compared_table(found: Sequence[Comparison]) -> str:
    """Return comparisons as a Markdown table."""
    return markdown_table(*comparison_rows(found))


def comparison_rows(found: Sequence[Comparison]) -> tuple[list[str], list[list[object]]]:
    """Return the header and the rows of a table of comparisons."""
    header = ["variant", "against", "task", "seeds", "difference [95%]", "p", "the variant is"]
    return header, [
        [one.variant, one.against, one.task, one.num_seeds, _points(one), _p(one.adjusted), one.verdict]
        for one in found
    ]


def _points(one: Comparison) -> str:
    ends = "" if one.interval is None else " [{:+.1f}, {:+.1f}]".format(*(100 * end for end in one.interval))
    return f"{100 * one.difference:+.1f}{ends}"


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
