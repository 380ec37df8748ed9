"""`umie ablate`: run an ablation grid."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from umie.cli.console import print_line, print_note, show_page
from umie.cli.options import DataRoot, Plugins, Settings, data_root_of
from umie.cli.plan_display import print_cells, print_plan
from umie.cli.progress import GridDisplay
from umie.errors import UmieError

if TYPE_CHECKING:
    from umie.experiments.grid_run import GridRun, Selection


def ablate(
    grid_file: Annotated[Path, typer.Argument(help="The grid (YAML); see examples/.")],
    plan: Annotated[
        bool, typer.Option("--plan", help="Check and list the cells and what they will cost, without running them.")
    ] = False,
    calibrate: Annotated[
        bool, typer.Option("--calibrate", help="With --plan: measure a few steps of each kind of cell for the costs.")
    ] = False,
    seeds: Annotated[
        str | None, typer.Option(metavar="SEEDS", help="Seeds instead of those of the grid, e.g. 0-4 or 0,2.")
    ] = None,
    only: Annotated[
        list[str] | None,
        typer.Option(metavar="SLOT=OPTION,...", help="Run only cells with these options, or seeds. Repeatable."),
    ] = None,
    only_failed: Annotated[bool, typer.Option("--only-failed", help="Run only cells that failed.")] = False,
    limit: Annotated[int | None, typer.Option(min=1, help="Run at most this number of cells.")] = None,
    data_root: DataRoot = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Output directory; by default runs/NAME.")
    ] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Concurrent cells; by default one per GPU or per two processors.")
    ] = None,
    engine: Annotated[
        str | None, typer.Option(metavar="NAME", help="What runs the cells: processes, inline, slurm or ray.")
    ] = None,
    time_limit: Annotated[
        str | None, typer.Option(metavar="TIME", help="Limit of a cell, e.g. 2h; one that is over it has failed.")
    ] = None,
    memory_limit: Annotated[
        str | None, typer.Option(metavar="SIZE", help="Limit of a cell, e.g. 8GB; one that is over it has failed.")
    ] = None,
    split: Annotated[
        str | None, typer.Option(help="Split to score on, instead of that of the grid; use dev while choosing options.")
    ] = None,
    settings: Settings = None,
    plugins: Plugins = None,
) -> None:
    """Run an ablation grid and write its report, table and figure. Run it again to continue with the missing cells.

    The grid is a YAML file; docs/grids.md describes its keys.

        umie ablate examples/embedded.yaml --plan
        umie ablate examples/embedded.yaml
        umie ablate grid.yaml --set training.max_steps=500 --split dev
        umie ablate grid.yaml --seeds 0-4 --only fusion=gated,concat --limit 10
        umie ablate grid.yaml --only-failed
        umie ablate grid.yaml --plan --calibrate
        umie ablate grid.yaml --workers 4 --time-limit 2h --memory-limit 8GB
        umie ablate grid.yaml --engine slurm --set engine.partition=gpu --time-limit 2h

    Cells that have a result do not run again. --only names options as the table does, or parts (fusion=gated fits all
    options of the part gated that have a label of their own). A variant without a slot, such as text_only, which has no
    encoder, is left out if --only names the slot. What it leaves out, and what is beyond --limit, is for a later run,
    and the table shows what there is.

    --engine says what runs the cells: processes on this machine (by default), inline (this process, e.g. for a
    debugger), slurm (an array of jobs) or ray (a cluster that shares no file system); --set engine.KEY=VALUE sets its
    options. A cell over --time-limit or --memory-limit has failed, and the others go on.

    With --plan, nothing runs: the cells are listed with what is done, the work that they share, and an estimate of
    time, memory and disk from finished cells of the directory; missing files are listed, too (exit code 2). With
    --calibrate, kinds of cells without a finished one are measured for a few steps.

    Exit code: 0 all chosen cells have results, 1 a cell failed (the other results are kept), 2 bad input, found before
    any cell runs, 130 interrupted (run the same command again to go on).
    """
    from umie.experiments.combine import read_seeds
    from umie.experiments.expand import read_grid
    from umie.registry import load_plugins

    if calibrate and not plan:
        raise UmieError("--calibrate measures for --plan: use both")
    load_plugins(plugins or ())
    settings = [*(settings or ()), *([f"seeds={read_seeds(seeds)}"] if seeds is not None else ())]
    limits = {"time_limit": time_limit, "memory_limit": memory_limit}
    settings += [f"{key}={value}" for key, value in limits.items() if value is not None]
    command = shlex.join(["umie", *sys.argv[1:]])
    grid = read_grid(grid_file, settings)
    grid = grid.with_changes(workers=workers, split=split, plugins=plugins or (), command=command, engine=engine)
    rule = grid.options.rules_of(only or ())
    root = data_root_of(data_root, grid_file)
    if output is None:
        output = Path("runs") / (grid.name if split is None else f"{grid.name}-{split}")
    from umie.experiments.identity import check_output
    from umie.experiments.parts import check_parts, missing_files

    check_output(output)
    runs = [cell.config for cell in grid.cells]
    if plan:
        check_parts(runs, grid.report_to, read_files=False)
        if missing := missing_files(runs, root):
            print_cells([(cell, "blocked: missing files") for cell in grid.cells])
            for line in missing:
                print_note(f"umie: missing: {line}")
            raise typer.Exit(2)
    check_parts(runs, grid.report_to)
    from umie.experiments.grid_run import Selection
    from umie.experiments.scheduler import run_grid
    from umie.reports.style import check_figures

    if not plan:
        check_figures()
    selection = Selection(rule, only_failed, limit)
    display = GridDisplay()
    try:
        if plan:
            from umie.experiments.planning import plan_grid

            with display:
                found = plan_grid(grid, root, output, display, selection=selection, calibrate=calibrate)
            print_plan(found, output)
            return
        with display:
            run = run_grid(grid, root, output, display, selection=selection)
    except KeyboardInterrupt as error:
        print_note(f"umie: interrupted: {_state(display)}; run the same command again to go on")
        raise typer.Exit(130) from error
    _finish(run, output, display, selection)


def _finish(run: GridRun, output: Path, display: GridDisplay, selection: Selection) -> None:
    """Write and print the report of a grid, and what is left to do; exit with code 1 if a chosen cell failed."""
    from umie.experiments.grid_run import Selection
    from umie.reports.grid import FILES, write_report

    if not display.num_started:
        why = "no chosen cell has failed" if selection.only_failed else "all chosen cells already had results"
        why = f"all {len(run.cells)} cells already had results" if not (run.crashed or run.missing) else why
        print_note(f"umie: {why}; none was run")
    show_page(write_report(run, output))
    print_line(f"\nWritten: {', '.join(str(path) for name in FILES if (path := output / name).exists())}")
    if run.missing:
        what = "did not run yet; run the grid again to go on"
        if selection != Selection():
            what = "did not run: they were not chosen; run the grid without --only, --only-failed and --limit"
        print_note(f"umie: {len(run.missing)} of {len(run.cells)} cells {what}")
    if run.crashed:
        print_note(f"umie: {len(run.crashed)} of {len(run.cells)} cells failed; see {output / 'report.html'}", "red")
    if any(cell.hash in run.chosen for cell in run.crashed):
        raise typer.Exit(1)


def _state(display: GridDisplay) -> str:
    if display.tally is None:
        return "before the first cell"
    return f"{display.tally.finished} of {display.tally.total} cells are finished"
