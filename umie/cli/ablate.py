"""`umie ablate`: ablation grids."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Annotated

import typer
from rich.markdown import Markdown
from rich.markup import escape
from rich.table import Table

from umie.cli.console import err, out
from umie.cli.grid_display import GridDisplay
from umie.errors import UmieError


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

    Exit code: 0 all cells are there, 1 a cell crashed (the others are kept), 2 bad input, found before any runs.
    """
    import dataclasses

    from umie.grid.config import Evaluation
    from umie.grid.plan import read_grid
    from umie.grid.run import prepare, read_results, run_grid

    grid = read_grid(grid_file)
    if workers is not None:
        grid = dataclasses.replace(grid, workers=workers)
    if split is not None:
        evaluation: Evaluation = dataclasses.replace(grid.evaluation, split=split)
        grid = dataclasses.replace(grid, evaluation=evaluation)
    root = grid_file.parent if data is None else data
    if not root.is_dir():
        raise UmieError(f"--data {root}: no such folder")
    if output is None:
        output = Path("runs") / (grid.name if split is None else f"{grid.name}-{split}")
    if plan:
        with GridDisplay() as display, tempfile.TemporaryDirectory() as scratch:
            planned_data, cells = prepare(grid, root, Path(scratch), display)
        results = read_results(output, cells, mend=False)
        table = Table("cell", "variant", "seed", "state")
        for cell in cells:
            state = results.get(cell.hash, {}).get("status", "to run")
            table.add_row(cell.hash, escape(cell.variant), str(cell.seed), state)
        out.print(table)
        sizes = ", ".join(f"{name} {count}" for name, count in planned_data.num_records.items())
        out.print(f"{len(cells)} cells; records: {sizes}; results go to {output}", highlight=False, markup=False)
        return
    try:
        with GridDisplay() as display:
            run = run_grid(grid, root, output, display)
        if not display.num_started:
            err.print(f"umie: all {len(run.cells)} cells were there already, none was run", highlight=False)
    except KeyboardInterrupt as error:
        err.print("umie: interrupted; what is finished is kept, run the same command to go on")
        raise typer.Exit(130) from error
    from umie.grid.report import write_report

    report = write_report(run, output)
    if out.is_terminal:
        out.print(Markdown(report))
    else:
        sys.stdout.write(report)
    out.print(
        f"\nWritten: {output / 'table.md'}, {output / 'table.csv'}, {output / 'figure.png'}",
        highlight=False,
        markup=False,
    )
    if run.crashed:
        err.print(
            f"umie: {len(run.crashed)} of {len(run.cells)} cells crashed; see {output / 'table.md'}",
            style="red",
        )
        raise typer.Exit(1)
