"""The report of a grid: a page as HTML and Markdown, tables as CSV and LaTeX, and figures."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from umie.errors import printable
from umie.experiments.grid_file import describe
from umie.experiments.grid_results import GridResults
from umie.experiments.grid_run import GridRun
from umie.experiments.results import state_of
from umie.experiments.summary import MEAN, Row, complete_mean, rows, score, title
from umie.files import atomic_write
from umie.records import MEDIA
from umie.reports.combinations import combinations, combinations_section
from umie.reports.gate_study import HISTOGRAM, SWEEP, write_gate_study
from umie.reports.grid_facts import data_facts
from umie.reports.grid_figure import draw_grid
from umie.reports.grid_html import html_page
from umie.reports.grid_table import comparisons, page_head, summary
from umie.reports.places import places_section
from umie.reports.tables import (
    csv_table,
    latex_table,
    markdown_list,
    markdown_table,
    markdown_text,
    shown_interval,
)

HTML, PAGE, CSV, LATEX, FIGURE = "report.html", "table.md", "table.csv", "table.tex", "figure.png"
_FIGURES = (name for png in (FIGURE, SWEEP, HISTOGRAM) for name in (png, f"{png[:-4]}.pdf", f"{png[:-4]}.svg"))
FILES = (HTML, PAGE, CSV, LATEX, *_FIGURES)
MAX_MISSING = 20  # cells that are listed


def write_report(run: GridRun, output: Path) -> str:
    """Write the pages, the tables and the figures of a grid into its folder; return the page in Markdown.

    A grid that varies the gate also gets ``gate_sweep.png`` and ``gate_histogram.png``. Each figure is also written as
    PDF and SVG.
    """
    table = rows(run)
    results = GridResults(output, describe(run, with_baselines=True), run.results)
    header, given, measured = summary(run, table)
    main = markdown_table(header, [[f"*{name}*", *cells] for name, *cells in given] + measured)
    facts = list(data_facts(run))
    page = _page(run, results, main, write_gate_study(run, output), facts)
    texts = {
        HTML: html_page(results, facts, combinations(run)),
        PAGE: page,
        LATEX: latex_table(header, given + measured) + "\n",
        CSV: _csv(run, table),
    }
    for name, text in texts.items():
        with atomic_write(output / name) as file:
            file.write(text)
    draw_grid(results, table, output / FIGURE, vector=True)
    return page


def ceiling_findings(run: GridRun) -> list[str]:
    """Compare every cell with the text-only ceiling, which a variant without image input cannot truly exceed."""
    found = []
    for cell in run.cells:
        line = run.results.get(cell.hash)
        if line is None or line["status"] != "ok":
            continue
        name = f"{cell.variant}, seed {cell.seed}"
        if line["uses_image"]:
            mean_ceiling = complete_mean(run.ceilings, run.mean_over)
            if mean_ceiling is not None:
                mean = score(line, MEAN, run.mean_over)
                side = "above" if mean > mean_ceiling else "BELOW"
                found.append(f"{name}: mean {mean:.3f}, {abs(mean - mean_ceiling):.3f} {side} the mean ceiling")
            continue
        for task, ceiling in run.ceilings.items():
            metrics = line["metrics"][task]
            verdict = "not significantly above" if metrics["interval"][0] <= ceiling else "ABOVE"
            found.append(
                f"{name}: {title(run, task)} {shown_interval(metrics)} is {verdict} the ceiling of {ceiling:.3f}"
            )
    return found


def _page(run: GridRun, results: GridResults, summary: str, gate: str, facts: Sequence[str]) -> str:
    parts = page_head(results, summary)
    if compared := comparisons(run, results.counts):
        parts += ["## What the intervals support", compared]
    if by_combination := combinations_section(run):
        parts += ["## By combination of media", by_combination]
    if places := places_section(run):
        parts += ["## Places", places]
    parts += ["## Cells", _cells(run), "## Data", markdown_list(facts)]
    if gate:
        parts += ["## Gate", gate]
    if found := ceiling_findings(run):
        parts += ["## Compared with the text-only ceiling", markdown_list(found)]
    if run.grid.first.notes:
        parts += ["## Notes", markdown_list(run.grid.first.notes)]
    if run.missing:
        parts.append(f"## Not run yet ({len(run.missing)}; run the grid again to go on)")
        listed = [f"{cell.variant}, seed {cell.seed}: not run" for cell in run.missing[:MAX_MISSING]]
        more = len(run.missing) - len(listed)
        parts.append(markdown_list([*listed, *([f"and {more} more"] if more else [])]))
    if run.crashed:
        parts.append(f"## Failed ({len(run.crashed)})")
        parts.append("The next run tries them again. Where a limit was exceeded, raise it first.")
        for cell in run.crashed:
            line = run.results.get(cell.hash, {})
            parts.append(markdown_text(f"{cell.variant}, seed {cell.seed}: {line['error']}"))
            if traceback := line.get("traceback"):  # none where a limit was exceeded
                parts.append(f"```\n{printable(traceback).replace('```', '` ` `')}\n```")
    return "\n\n".join(parts) + "\n"


def _cells(run: GridRun) -> str:
    tasks = [one.key for one in run.scored]
    scored = [f"{one.title} [95%]" for one in run.scored]
    header = ["variant", "seed", *scored, MEAN, "gate closed", "dropped", "encoder calls"]
    body: list[list[object]] = []
    for cell in run.cells:
        line = run.results.get(cell.hash)
        if line is None or line["status"] != "ok":
            state = state_of(line)
            body.append([cell.variant, cell.seed, *[state] * (len(tasks) + 1), "", "", ""])
            continue
        metrics, closed = line["metrics"], line["health"].get("gate_closed")
        scores = [*(shown_interval(metrics[task]) for task in tasks), f"{score(line, MEAN, run.mean_over):.3f}"]
        facts = ["-" if closed is None else f"{closed:.0%}", sum(metrics[task]["dropped"] for task in tasks)]
        images = line.get("images", {})
        encoded = [images, *(images[medium] for medium in MEDIA if medium in images)]
        calls = sum(one["encoder_calls"] for one in encoded) if images else "-"
        body.append([cell.variant, cell.seed, *scores, *facts, calls])
    place, encoded_by = "a region of the image", "images that were passed through the visual encoder"
    if not run.data.has_only_images:
        place, encoded_by = "a place in a medium", "images, sounds and videos that were passed through their encoders"
    return markdown_table(header, body) + (
        "\n\nThese intervals are bootstrap intervals over the records of the split, for one trained model. *Dropped*: "
        f"generated items that were malformed, not in the text, or not {place}. *Encoder calls*: {encoded_by}."
    )


def _csv(run: GridRun, table: Sequence[Row]) -> str:
    """Return one line per variant and task, with the F1 of each seed."""
    references = run.references
    keys = [one.key for one in run.scored]
    oracles = [one.key for one in run.scored if one.is_oracle]
    ceilings = {**run.ceilings, MEAN: complete_mean(run.ceilings, run.mean_over)}
    header = ["variant", "task", "num_seeds", "f1_mean", "f1_t95_half_width", "f1_by_seed", "ceiling"]
    body = []
    for row in table:
        for name, interval in row.scores.items():
            task = f"{name} (oracle events)" if name in oracles else name
            by_seed = " ".join(f"{line['seed']}:{score(line, name, run.mean_over):.6f}" for line in row.lines)
            numbers = [_six_places(interval.mean), _six_places(interval.half_width), by_seed]
            printed = ("" if name == MEAN else _six_places(one.values[keys.index(name)]) for one in references)
            body.append([row.variant, task, len(row.lines), *numbers, _six_places(ceilings.get(name)), *printed])
    return csv_table([*header, *(f"reference: {one.title}" for one in references)], body)


def _six_places(value: float | None) -> str:
    return "" if value is None or math.isnan(value) else f"{value:.6f}"
