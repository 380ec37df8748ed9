"""The command line: `umie list`, `umie ablate`, `umie data`."""

from __future__ import annotations

import json
import logging
import os
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markdown import Markdown
from rich.markup import escape
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

from umie.errors import UmieError

app = typer.Typer(
    help="Multimodal information extraction from composable parts: encoders, fusion, decoders, tasks.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
data_app = typer.Typer(help="Work with data sets.", no_args_is_help=True)
app.add_typer(data_app, name="data")

out = Console()
err = Console(stderr=True)


def main() -> None:
    """Run the command line; bad input is one line on standard error and exit code 2."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    for library in ("transformers", "huggingface_hub", "httpx"):
        logging.getLogger(library).setLevel(logging.ERROR)
    try:
        app()
    except UmieError as error:
        message = " ".join(str(error).split())
        err.print(f"umie: {message}", style="red", markup=False, highlight=False, soft_wrap=True)
        sys.exit(2)
    except OSError as error:  # a full disk, a folder that cannot be written
        err.print(f"umie: {error}", style="red", markup=False, highlight=False, soft_wrap=True)
        sys.exit(2)


@app.callback(invoke_without_command=True)
def _version(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
) -> None:
    if version:
        import umie

        out.print(umie.__version__)
        raise typer.Exit
    if context.invoked_subcommand is None:
        out.print(context.get_help())


@app.command("list")
def list_parts(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON and nothing else.")] = False,
) -> None:
    """List the registered encoders, fusions, decoders and tasks, plugins among them."""
    import umie

    parts = {
        "encoders": umie.encoders.registry.names(),
        "fusion": umie.fusion.registry.names(),
        "decoders": umie.decoders.registry.names(),
        "tasks": umie.tasks.registry.names(),
    }
    if as_json:
        sys.stdout.write(json.dumps(parts, indent=2) + "\n")
        return
    from umie.decoders.t5 import PRESETS

    table = Table("slot", "names")
    for slot, names in parts.items():
        table.add_row(slot, ", ".join(names))
    table.add_row("presets of t5", ", ".join(PRESETS))
    table.add_row("data formats", ", ".join(["synthetic", *umie.data.registry.names()]))
    out.print(table)


@app.command()
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

    from umie.grid.plan import Evaluation, read_grid
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
        with _Display() as display, tempfile.TemporaryDirectory() as scratch:
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
        with _Display() as display:
            run = run_grid(grid, root, output, display)
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


@data_app.command("synthetic")
def synthetic(
    folder: Annotated[Path, typer.Argument(help="Where to write train.jsonl, dev.jsonl, test.jsonl and pictures.")],
    seed: Annotated[int, typer.Option(help="Everything is drawn from it.")] = 0,
    train: Annotated[int, typer.Option(help="Number of training records.")] = 3000,
    dev: Annotated[int, typer.Option(help="Number of dev records.")] = 300,
    test: Annotated[int, typer.Option(help="Number of test records.")] = 900,
    picture_share: Annotated[float, typer.Option(help="Share of records that only the picture decides.")] = 0.62,
) -> None:
    """Draw the embedded data set into a folder, as JSONL with PNG pictures, and print its ceilings."""
    from umie.data.synthetic import SyntheticConfig, ceilings, write_synthetic

    config = SyntheticConfig(seed=seed, train=train, dev=dev, test=test, picture_share=picture_share)
    files = write_synthetic(folder, config)
    for split, path in files.items():
        out.print(f"{split}: {getattr(config, split)} records in {path}", highlight=False, markup=False)
    shown = ", ".join(f"{task.upper()} {ceiling:.3f}" for task, ceiling in ceilings(config).items())
    out.print(f"ceiling of text alone: {shown}", highlight=False)


class _Display:
    """A bar for the grid and one for each running job; plain lines where there is no terminal."""

    def __init__(self) -> None:
        self.progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.percentage:>3.0f}%"),
            TimeElapsedColumn(),
            TextColumn("{task.fields[phase]}"),
            console=err,
            transient=True,
            disable=not err.is_terminal,
        )
        self.bars: dict[str, TaskID] = {}
        self.preparation: TaskID | None = None

    def __enter__(self) -> _Display:
        self.progress.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.progress.stop()

    def preparing(self, what: str) -> None:
        """Show what is done before the first job."""
        if self.preparation is None:
            self.preparation = self.progress.add_task(what, total=None, phase="")
        self.progress.update(self.preparation, description=what)

    def start(self, job: str) -> None:
        """Begin a job's bar."""
        if self.preparation is not None:
            self.progress.remove_task(self.preparation)
            self.preparation = None
        self.bars[job] = self.progress.add_task(escape(job), total=1.0, phase="loading")
        if not err.is_terminal:
            self._note(f"{job}: started")

    def advance(self, job: str, phase: str, share: float) -> None:
        """Move a job's bar."""
        self.progress.update(self.bars[job], completed=share, phase=phase)

    def finish(self, job: str, line: Mapping[str, Any]) -> None:
        """Remove a job's bar and print how it ended."""
        self.progress.remove_task(self.bars.pop(job))
        seconds = line.get("seconds", {}).get("total", 0)
        if line["status"] != "ok":
            self._note(f"{job}: crashed: {line['error']}")
            return
        scores = " ".join(f"{task} {result['f1']:.3f}" for task, result in line.get("metrics", {}).items())
        self._note(f"{job}: done in {seconds:.0f} s {scores}".rstrip())

    def _note(self, what: str) -> None:
        err.print(what, highlight=False, markup=False, soft_wrap=True)
