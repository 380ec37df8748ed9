"""The page of a grid: one HTML file that needs nothing else, with sortable tables and figures."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from umie.experiments.grid_results import GridResults
from umie.experiments.results import CURVES, GATES, STATES, cell_folder, read_numbers
from umie.experiments.statistics import Comparison
from umie.experiments.summary import rows, score, title
from umie.reports.combinations import Combinations
from umie.reports.gates import gate_figure
from umie.reports.grid_figure import grid_figure, panel_names
from umie.reports.grid_plots import Curve, cost_figure, costs, curve_figure, difference_figure, pareto_front
from umie.reports.grid_table import comparison_rows, summary, tests
from umie.reports.pages import render
from umie.reports.places import place_tables
from umie.reports.style import inline_svg
from umie.reports.tables import shown_interval

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_MAX_BARS = 60  # variants in a figure
_MAX_GATES = 20  # variants whose gates are drawn


class Table(NamedTuple):
    """A table of the page; the fixed rows stay at its end when it is sorted."""

    header: Sequence[str]
    rows: Sequence[Sequence[object]]
    fixed: Sequence[Sequence[object]] = ()


class Compared(NamedTuple):
    """A group of comparisons: what they are about, their table, and a figure for each task."""

    about: str
    table: Table
    figures: Sequence[Any]


def html_page(results: GridResults, facts: Sequence[str] = (), combinations: Combinations | None = None) -> str:
    """Return the page of a grid.

    It runs no script but its own, and loads nothing. Texts from data are escaped.

    Args:
        results: the results; learning curves and gates are in directories, not in archives.
        facts: sentences about data, parts and training.
        combinations: the table by combination of media, which is not in archives either.
    """
    table = rows(results)
    header, given, measured = summary(results, table)
    bars = table[:_MAX_BARS]
    points_of = costs(table)
    states = Counter(map(results.status, results.cells))
    finished = [line for line in results.results.values() if line["status"] == "ok"]
    return render(
        "grid",
        grid=results.grid,
        averaged=", ".join(title(results, key) for key in results.mean_over),
        num_records=sum(results.grid.num_records.values()),
        states={name: states[name] for name in STATES if states[name]},
        versions=[] if facts else list({repr(line["versions"]): line["versions"] for line in finished}.values()),
        variants=Table(header, measured, given),
        bars=[_svg(grid_figure(results, bars, [name])) for name in panel_names(results)] if finished else [],
        compared=[_compared(about, found) for about, found in tests(results, results.counts).items()],
        combinations=None if combinations is None else {"table": Table(*combinations[:3]), "notes": combinations.notes},
        places=[(said, Table(header, body)) for said, header, body in place_tables(results)],
        costs=_svg(cost_figure(points_of)) if points_of else None,
        front=pareto_front(points_of),
        curves=list(_curves(results)),
        gates=list(_gates(results)),
        max_gates=_MAX_GATES,
        failures=[
            (f"{cell.variant}, seed {cell.seed}", line["error"], line.get("traceback", ""))
            for cell in results.cells
            if (line := results.results.get(cell.hash, {})).get("status") == "crashed"
        ],
        cells=_cells(results),
        facts=[fact.replace("**", "").replace("`", "") for fact in facts],
    )


def _svg(figure: Figure) -> Any:
    from markupsafe import Markup

    return Markup(inline_svg(figure))


def _compared(about: str, found: Sequence[Comparison]) -> Compared:
    by_task: dict[str, list[Comparison]] = {}
    for one in found:
        by_task.setdefault(one.task, []).append(one)
    figures = [_svg(difference_figure(own[:_MAX_BARS], task)) for task, own in by_task.items()]
    return Compared(about.replace("*", ""), Table(*comparison_rows(found)), figures)


def _numbers(results: GridResults, name: str, depth: int) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield the variant and the numbers in a file of each finished cell that has them."""
    for cell in results.cells:
        line = results.results.get(cell.hash, {})
        if results.archived is None and line.get("status") == "ok":
            found = read_numbers(line, cell_folder(results.path, cell.hash) / name, depth)
            if any(found.values()):
                yield cell.variant, found


def _curves(results: GridResults) -> Iterator[Any]:
    titles = {"loss": ("Training loss", "mean loss (nats)"), "dev": ("Scores on the dev split", "mean F1")}
    curves: dict[str, dict[str, list[Curve]]] = {name: {} for name in titles}
    for variant, found in _numbers(results, CURVES, 2):
        for name, own in curves.items():
            curve = [(point[0], point[1]) for point in found.get(name, ()) if len(point) == 2]
            if curve:
                own.setdefault(variant, []).append(curve)
    for name, own in curves.items():
        if own:
            yield _svg(curve_figure(own, *titles[name]))


def _gates(results: GridResults) -> Iterator[tuple[str, list[Any]]]:
    by_variant: dict[str, dict[str, list[float]]] = {}
    for variant, found in _numbers(results, GATES, 1):
        for key, gates in found.items():
            by_variant.setdefault(variant, {}).setdefault(title(results, key), []).extend(gates)
    for variant, gates in itertools.islice(by_variant.items(), _MAX_GATES):
        yield variant, [_svg(gate_figure({task: values})) for task, values in gates.items() if values]


def _cells(results: GridResults) -> Table:
    header = [
        "variant",
        "seed",
        *(f"{one.title} [95%]" for one in results.scored),
        "mean",
        "train s",
        "memory (GB)",
        "id",
    ]
    body: list[list[object]] = []
    for cell in results.cells:
        line = results.results.get(cell.hash, {})
        state = results.status(cell)
        if state == "ok":
            scores = [shown_interval(line["metrics"][key]) for key in results.tasks]
            mean = f"{score(line, 'mean', results.mean_over):.3f}"
            memory = max(line.get("memory", {}).values(), default=0) / 1e9
            facts = [f"{line['seconds'].get('train', 0):.0f}", f"{memory:.1f}" if memory else "-"]
        else:
            scores, mean, facts = [state] * len(results.tasks), "-", ["-", "-"]
        body.append([cell.variant, cell.seed, *scores, mean, *facts, cell.hash])
    return Table(header, body)
