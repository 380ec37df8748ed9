"""`umie ablate`: run an ablation grid."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Table

from umie.cli.console import out, print_line, print_note, show_page
from umie.cli.options import DataRoot, Plugins, Settings, data_root_of
from umie.cli.progress import GridDisplay

if TYPE_CHECKING:
    from umie.experiments.expand import Cell, Grid


def ablate(
    grid_file: Annotated[Path, typer.Argument(help="The grid (YAML); see examples/.")],
    plan: Annotated[bool, typer.Option("--plan", help="Check and list the cells without running them.")] = False,
    data_root: DataRoot = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Output directory; by default runs/NAME.")
    ] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Concurrent cells; by default one per GPU or per two processors.")
    ] = None,
    split: Annotated[
        str | None, typer.Option(help="Split to score on, instead of that of the grid; use dev while choosing options.")
    ] = None,
    settings: Settings = None,
    plugins: Plugins = None,
) -> None:
    """Run an ablation grid and write its table and figure. Run it again to continue with the missing cells.

    The grid is a YAML file; docs/grids.md describes its keys.

        umie ablate examples/embedded.yaml --plan
        umie ablate examples/embedded.yaml
        umie ablate grid.yaml --set training.max_steps=500 --split dev

    With --plan, nothing runs: the cells and any missing files are listed (exit code 2 if files are missing).

    Exit code: 0 all cells have results, 1 a cell crashed (the other results are kept), 2 bad input, found before any
    cell runs.
    """
    from umie.experiments.expand import read_grid
    from umie.registry import load_plugins

    load_plugins(plugins or ())
    grid = read_grid(grid_file, settings or ()).with_changes(workers=workers, split=split, plugins=plugins or ())
    root = data_root_of(data_root, grid_file)
    if output is None:
        output = Path("runs") / (grid.name if split is None else f"{grid.name}-{split}")
    from umie.experiments.identity import check_output
    from umie.experiments.parts import check_parts, missing_files

    check_output(output)
    runs = [cell.config for cell in grid.cells]
    if plan:
        check_parts(runs, read_files=False)
        if missing := missing_files(runs, root):
            _print_cells([(cell, "blocked: missing files") for cell in grid.cells])
            for line in missing:
                print_note(f"umie: missing: {line}")
            raise typer.Exit(2)
    check_parts(runs)
    if plan:
        _plan(grid, root, output)
        return
    from umie.experiments.scheduler import run_grid
    from umie.reports.grid import FILES, write_report

    try:
        with GridDisplay() as display:
            run = run_grid(grid, root, output, display)
        if not display.num_started:
            print_note(f"umie: all {len(run.cells)} cells already had results; none was run")
    except KeyboardInterrupt as error:
        print_note("umie: interrupted; finished cells are kept; run the same command again to continue")
        raise typer.Exit(130) from error
    show_page(write_report(run, output))
    print_line(f"\nWritten: {', '.join(str(path) for name in FILES if (path := output / name).exists())}")
    if run.crashed:
        print_note(f"umie: {len(run.crashed)} of {len(run.cells)} cells crashed; see {output / 'table.md'}", "red")
        raise typer.Exit(1)


# what the tokens of training queries depend on
_TOKENIZING = ("decoder", "trained_on", "wording", "max_input_tokens", "max_target_tokens", "start_from")


def _plan(grid: Grid, root: Path, output: Path) -> None:
    from umie.experiments.parts import unnamed_places
    from umie.experiments.scheduler import prepare, results_of
    from umie.experiments.training_queries import plan_queries

    with GridDisplay() as display, tempfile.TemporaryDirectory() as scratch:
        corpus, cells = prepare(grid, root, Path(scratch), display)
        distinct = {repr([getattr(cell.config, slot) for slot in _TOKENIZING]): cell.config for cell in cells}
        notes = [line for config in distinct.values() for line in plan_queries(config, corpus)]
    results = results_of(grid, corpus, cells, output, lambda what: print_note(f"umie: {what}"), repair=False)
    _print_cells([(cell, results.get(cell.hash, {}).get("status", "to run")) for cell in cells])
    for name, one in corpus.sets.items():
        sizes = ", ".join(f"{split} {count}" for split, count in one.num_records.items())
        if not corpus.is_single:
            print_line(f"{name}: {sizes}")
        for line in one.overlap():
            print_note(f"umie: warning: {name}: {line}")
    what = f"records: {sizes}" if corpus.is_single else f"{len(corpus.sets)} data sets"
    print_line(f"{len(cells)} cells; {what}; output: {output}")
    for line in dict.fromkeys(notes):
        print_note(f"umie: warning: {line}")
    if warning := unnamed_places([cell.config for cell in cells], corpus.tasks):
        print_note(f"umie: warning: {warning}")


def _print_cells(states: Sequence[tuple[Cell, str]]) -> None:
    table = Table("cell", "variant", "seed", "state")
    for cell, state in states:
        table.add_row(cell.hash or "-", escape(cell.variant), str(cell.seed), state)
    out.print(table)
