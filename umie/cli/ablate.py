"""`umie ablate`: ablation grids."""

from __future__ import annotations

import dataclasses
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markdown import Markdown
from rich.markup import escape
from rich.table import Table

from umie.cli.console import err, out
from umie.cli.grid_display import GridDisplay
from umie.errors import UmieError

if TYPE_CHECKING:
    from umie.experiments.grid_config import GridConfig
    from umie.experiments.plan import Cell


def ablate(
    grid_file: Annotated[Path, typer.Argument(help="The grid, a YAML file; see examples/.")],
    plan: Annotated[bool, typer.Option("--plan", help="Check everything, print the cells, and stop.")] = False,
    data: Annotated[
        Path | None,
        typer.Option(help="Folder that relative paths of `data` start from; by default the grid file's."),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(help="Folder for results; by default runs/<name of the grid>, with --split in its name."),
    ] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Cells that run at a time.")] = None,
    split: Annotated[
        str | None,
        typer.Option(help="Score on this split in place of the grid's: dev while choosing options."),
    ] = None,
) -> None:
    """Run an ablation grid and write its table and figure; run it again to continue with what is missing.

    With --plan nothing runs: the cells are listed, and what the grid needs and is not here is named (exit code 2).
    Exit code: 0 all cells are there, 1 a cell crashed (the others are kept), 2 bad input, found before any runs.
    """
    from umie.experiments.parts import absent, unnamed_regions
    from umie.experiments.plan import plan_cells, read_grid
    from umie.experiments.scheduler import prepare, read_results, run_grid

    grid = read_grid(grid_file, read_files=not plan)
    grid = _with_options(grid, workers, split)
    root = grid_file.parent if data is None else data
    if not root.is_dir():
        raise UmieError(f"--data {root}: no such folder")
    if output is None:
        output = Path("runs") / (grid.name if split is None else f"{grid.name}-{split}")
    if plan and (lacking := absent(grid, root)):
        _print_cells(
            [(cell, "needs what is not here") for cell in plan_cells(grid, "", read_files=False)], hashed=False
        )
        for line in lacking:
            err.print(f"umie: not here: {line}", highlight=False, markup=False, soft_wrap=True)
        raise typer.Exit(2)
    if plan:
        grid = _with_options(read_grid(grid_file), workers, split)  # now with its weights and features
        with GridDisplay() as display, tempfile.TemporaryDirectory() as scratch:
            data_sets, cells = prepare(grid, root, Path(scratch), display)
        results = read_results(output, cells, mend=False)
        _print_cells([(cell, results.get(cell.hash, {}).get("status", "to run")) for cell in cells])
        for name, one in data_sets.sets.items():
            sizes = ", ".join(f"{split} {count}" for split, count in one.num_records.items())
            if not data_sets.is_single:
                out.print(f"{name}: {sizes}", highlight=False, markup=False)
        told = f"records: {sizes}" if data_sets.is_single else f"{len(data_sets.sets)} data sets"
        out.print(f"{len(cells)} cells; {told}; results go to {output}", highlight=False, markup=False)
        warning = unnamed_regions(grid, data_sets.tasks)
        if warning:
            err.print(f"umie: warning: {warning}", highlight=False, markup=False, soft_wrap=True)
        return
    try:
        with GridDisplay() as display:
            run = run_grid(grid, root, output, display)
        if not display.num_started:
            err.print(f"umie: all {len(run.cells)} cells were there already, none was run", highlight=False)
    except KeyboardInterrupt as error:
        err.print("umie: interrupted; what is finished is kept, run the same command to go on")
        raise typer.Exit(130) from error
    from umie.reports.grid import FIGURES, write_report

    report = write_report(run, output)
    if out.is_terminal:
        out.print(Markdown(report))
    else:
        sys.stdout.write(report)
    figures = [path for name in FIGURES if (path := output / name).exists()]
    written = ", ".join(str(path) for path in [output / "table.md", output / "table.csv", *figures])
    out.print(f"\nWritten: {written}", highlight=False, markup=False)
    if run.crashed:
        err.print(
            f"umie: {len(run.crashed)} of {len(run.cells)} cells crashed; see {output / 'table.md'}",
            style="red",
        )
        raise typer.Exit(1)


def _with_options(grid: GridConfig, workers: int | None, split: str | None) -> GridConfig:
    """Return the grid with what the command line says in place of its own."""
    if workers is not None:
        grid = dataclasses.replace(grid, workers=workers)
    if split is not None:
        grid = dataclasses.replace(grid, evaluation=dataclasses.replace(grid.evaluation, split=split))
    return grid


def _print_cells(states: Sequence[tuple[Cell, str]], *, hashed: bool = True) -> None:
    table = Table("cell", "variant", "seed", "state")
    for cell, state in states:
        table.add_row(cell.hash if hashed else "-", escape(cell.variant), str(cell.seed), state)
    out.print(table)
