"""Results of a grid as files: tidy rows as CSV and JSON, its page and tables as HTML, Markdown and LaTeX, figures."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from umie.errors import UmieError
from umie.experiments.grid_results import GridResults
from umie.experiments.results import STATES, results_of_others
from umie.experiments.summary import rows
from umie.files import atomic_write, json_text
from umie.reports import style
from umie.reports.grid_figure import draw_grid
from umie.reports.grid_html import html_page
from umie.reports.grid_table import comparisons, page_head, summary
from umie.reports.places import places_section
from umie.reports.tables import csv_table, latex_table, markdown_table

FORMATS = (".csv", ".json", ".html", ".md", ".tex", *style.FORMATS)


def check_export(path: Path) -> None:
    """Raise UmieError unless the name of a file ends in one of the formats."""
    if path.suffix.lower() not in FORMATS:
        raise UmieError(f"{path}: use a name that ends in {', '.join(FORMATS)}")


def export(results: GridResults, path: Path) -> None:
    """Write results in the format that the name of the file ends in.

    ``.csv`` and ``.json`` are tidy: one row for each finished cell, scored task and metric (``GridResults.rows``).
    ``.html`` is the page of the grid, ``.md`` the table with comparisons, ``.tex`` the table in the style of the
    booktabs package, ``.pdf``, ``.svg`` and ``.png`` its figure.

    Raises:
        UmieError: the name has another ending, or the file cannot be written.
    """
    check_export(path)
    kind = path.suffix.lower()
    if kind == ".csv":
        text = csv_table(results.columns, [list(row.values()) for row in results.rows()])
    elif kind == ".json":
        finished = [line["versions"] for line in results.results.values() if line["status"] == "ok"]
        about = results.grid.model_dump(mode="json", include={"name", "split", "f1_name", "mean_over", "cells"})
        about["versions"] = list({json_text(one): one for one in finished}.values())
        text = json_text({"grid": about, "rows": list(results.rows())}, indent=1) + "\n"
    elif kind == ".html":
        text = html_page(results)
    elif kind == ".md":
        text = page(results)
    elif kind in style.FORMATS:
        draw_grid(results, rows(results), path)
        return
    else:
        header, given, measured = summary(results, rows(results))
        text = latex_table(header, given + measured) + "\n"
    with atomic_write(path) as file:
        file.write(text)


def page(results: GridResults) -> str:
    """Return the table of a grid with its comparisons as Markdown."""
    header, given, measured = summary(results, rows(results))
    states = Counter(map(results.status, results.cells))
    count = ", ".join(f"{states[name]} {'finished' if name == 'ok' else name}" for name in STATES if states[name])
    table = markdown_table(header, [[f"*{name}*", *cells] for name, *cells in given] + measured)
    parts = [*page_head(results, table), f"Cells: {count}."]
    if results.others:
        found = results_of_others(results.others)
        parts.append(f"The directory also has {found}; run the grid with their options for their table.")
    if compared := comparisons(results, results.counts):
        parts += ["## What the intervals support", compared]
    if places := places_section(results):
        parts += ["## Places", places]
    return "\n\n".join(parts) + "\n"


def cells_table(results: GridResults) -> str:
    """Return the cells of a grid with their states and scores as Markdown."""
    header = ["cell", "variant", "seed", "state", *(one.title for one in results.scored), "train s", "parameters"]
    body = []
    for cell in results.cells:
        line = results.results.get(cell.hash, {})
        state = results.status(cell)
        if state == "ok":
            scores = [f"{line['metrics'][key]['f1']:.3f}" for key in results.tasks]
            facts = [f"{line['seconds'].get('train', 0):.0f}", f"{line['parameters']:,}"]
        else:
            scores, facts = [""] * len(results.tasks), ["", ""]
        body.append([cell.hash, cell.variant, cell.seed, state, *scores, *facts])
    return markdown_table(header, body)
