"""`umie grid`: show, compare, merge and export results of ablation grids."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from umie.cli.console import print_line, print_note, show_page
from umie.errors import UmieError, check_keys

if TYPE_CHECKING:
    from umie.experiments.grid_results import GridResults
    from umie.experiments.statistics import BySeed

Results = Annotated[Path, typer.Argument(help="The output directory of a grid, or an archive.")]


def show(
    path: Results,
    cells: Annotated[bool, typer.Option("--cells", help="List the cells instead of the variants.")] = False,
) -> None:
    """Print the table of a grid: its variants with the mean and interval over seeds, and what the intervals support.

    The directory is one that umie ablate wrote, or an archive of umie grid export; nothing is written.

        umie grid show runs/embedded
        umie grid show runs/embedded --cells

    Exit code: 0 success, 2 bad input.
    """
    from umie.reports.grid_export import cells_table, page

    results = _load(path)
    show_page(cells_table(results) + "\n" if cells else page(results))


def compare(
    path: Results,
    other: Annotated[Path | None, typer.Argument(help="A second directory or archive to compare with.")] = None,
    variant: Annotated[str | None, typer.Option(help="A variant of the first one, as the table names it.")] = None,
    against: Annotated[
        str | None,
        typer.Option(
            "--against",
            "--baseline",
            help="The variant to compare it with, or all others without --variant; in a second directory, by default "
            "the same.",
        ),
    ] = None,
) -> None:
    """Test the difference between two variants, or between two directories.

    Runs with the same seed and record are compared. The interval and p account for both sources of chance, seeds
    (Student's t) and records (paired bootstrap); p is corrected for the number of comparisons (Holm).

    With --baseline, every other variant is compared with it, with --variant, that variant with all others, and without
    both, variants are compared as in the table of umie ablate. With a second directory, every variant that both have is
    compared.

        umie grid compare runs/x --baseline text_only
        umie grid compare runs/x --variant gated --against text_only
        umie grid compare runs/x runs/y
        umie grid compare runs/x runs/y --variant gated --against concat

    Exit code: 0 success, 2 bad input, or nothing that can be compared.
    """
    from umie.experiments.comparison import compare as compare_all
    from umie.experiments.comparison import compare_pairs
    from umie.experiments.statistics import corrected
    from umie.reports.grid_table import compared_table

    results = _load(path)
    if other is None and variant is None and against is None:
        found = compare_all(results, results.counts)
    else:
        theirs = results if other is None else _load(other)
        _check_records(results, theirs)
        counts, pairs = _pairs(results, theirs, variant, against)
        same = {name for name, digest in results.grid.records.items() if theirs.grid.records.get(name) == digest}
        tasks = [one for one in results.scored if one.key in theirs.tasks and one.data_set in same]
        found = corrected(compare_pairs(counts, pairs, tasks))
    if not found:
        for name in (variant, against):
            own = [cell for cell in results.cells if cell.variant == name]
            if own and not any(results.status(cell) == "ok" for cell in own):
                raise UmieError(f"{path}: no cell of {name!r} is finished: run umie ablate again, then compare it")
        raise UmieError(f"{path}: nothing to compare: no two cells have the same seed and results by record")
    show_page(compared_table(found) + "\n")
    if any(one.num_seeds == 1 for one in found):
        print_note("umie: comparisons of a single seed do not include the variation between seeds")


def merge(
    paths: Annotated[list[Path], typer.Argument(help="Output directories of the grid, or archives.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The directory to join them in; it may have results.")],
) -> None:
    """Join results of one grid from several directories and archives, e.g. of two machines or of an earlier session.

    Cells are recognized by their ids. Results that the directory already has are kept. umie ablate in that directory
    then runs only the cells that are missing.

        umie grid merge laptop/runs/x server/runs/x -o runs/x
        umie grid merge x.umie.gz -o runs/x && umie ablate x.yaml -o runs/x

    Exit code: 0 joined, 1 joined, but two results of a cell differ (the first one is kept), 2 bad input.
    """
    from umie.experiments.merge import merge as join

    merged = join(paths, output)
    for line in merged.damage:
        print_note(f"umie: {line}")
    print_line(f"{output}: {merged.num_finished} of {merged.num_cells} cells are finished, {merged.num_added} added")
    for line in merged.conflicts:
        print_note(f"umie: conflict: {line}", "yellow")
    if merged.conflicts:
        raise typer.Exit(1)


def export(
    path: Results,
    output: Annotated[
        list[Path] | None,
        typer.Option(
            "--output",
            "-o",
            help="A file whose name ends in .csv, .json, .html, .md, .tex, .pdf, .svg or .png. Repeatable.",
        ),
    ] = None,
    archive: Annotated[
        Path | None, typer.Option(help="Write everything that tables and tests need to one small file.")
    ] = None,
) -> None:
    """Write the results of a grid to files.

    CSV and JSON are tidy: one row for each cell, task and metric. HTML is the page with tables and figures, Markdown
    the table with comparisons, LaTeX the table (booktabs); PDF, SVG and PNG have the figure of the table. An archive
    has metrics, counts by record, configs and versions of all finished cells, compressed, but no weights, no
    predictions and no texts of the data; umie grid merge restores the cells from it.

        umie grid export runs/x -o results.csv -o table.tex -o report.html
        umie grid export runs/x --archive x.umie.gz

    Exit code: 0 written, 2 bad input.
    """
    from umie.experiments.archive import write_archive
    from umie.reports.grid_export import check_export
    from umie.reports.grid_export import export as write

    if not output and archive is None:
        raise UmieError("nothing to write: use --output FILE, or --archive FILE")
    for file in output or ():
        check_export(file)
    results = _load(path)
    for file in output or ():
        write(results, file)
        print_line(f"Written: {file}")
    if archive is not None:
        if results.archived is not None:
            raise UmieError(f"{path}: is an archive already: copy it")
        count = write_archive(archive, path, results.results)
        print_line(f"Written: {archive} ({count} cells, {archive.stat().st_size:,} bytes)")


app = typer.Typer(help="Work with results of ablation grids.", no_args_is_help=True)
for command in (show, compare, merge, export):
    app.command()(command)


def _load(path: Path) -> GridResults:
    from umie.experiments.grid_results import load

    results = load(path)
    for line in results.damage:
        print_note(f"umie: {line}")
    return results


def _check_records(one: GridResults, other: GridResults) -> None:
    if one.grid.split != other.grid.split or not set(one.grid.records.items()) & set(other.grid.records.items()):
        raise UmieError(f"{other.path}: has other records than {one.path}: only the same records can be compared")


def _pairs(
    one: GridResults, other: GridResults, variant: str | None, against: str | None
) -> tuple[dict[str, BySeed], list[tuple[str, str]]]:
    """Return the counts of both sides by name, and the names to compare."""
    is_same = one is other
    names, others = list(one.counts), list(other.counts)
    for name, known in ((variant, names), (against, others)):
        if name is not None:
            check_keys("variant", [name], known)
    if variant is not None:
        wanted = [against] if against is not None else others if is_same else [variant]
        check_keys("variant", wanted, others)
        chosen = [(variant, name) for name in wanted]
    elif against is not None:
        chosen = [(name, against) for name in names]
    elif len(names) == len(others) == 1:
        chosen = [(names[0], others[0])]
    else:
        chosen = [(name, name) for name in names if name in others]

    def named(results: GridResults, name: str) -> str:
        return name if is_same else f"{name} ({results.path})"

    counts = {named(results, name): own for results in (one, other) for name, own in results.counts.items()}
    pairs = [(named(one, name), named(other, theirs)) for name, theirs in chosen]
    return counts, [(mine, yours) for mine, yours in pairs if mine != yours]
