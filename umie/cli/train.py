"""`umie train`: one variant from a config file."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.markdown import Markdown
from rich.table import Table

from umie.cli.console import err, out
from umie.cli.train_display import TrainDisplay
from umie.errors import UmieError

_EXAMPLE = """
The config is a grid file with one variant (docs/training.md):

    umie train examples/train_embedded.yaml
    umie train my.yaml --set training.epochs=5 --set fusion.gate=0.1
    torchrun --nproc_per_node 8 -m umie train my.yaml

The folder then holds best/ and last/, which umie evaluate, umie extract and
UmieModel.from_pretrained take, checkpoints, predictions and report.md.
A run that was ended goes on from its last checkpoint with the same command.
`preset: paper-base` (paper-large, paper-xl) in the config brings the paper's
values.

Exit code: 0 trained, 2 bad input, a loss that is no number or a full disk.
"""


def train(
    config_file: Annotated[Path, typer.Argument(help="The config, a YAML file; see examples/train_*.yaml.")],
    plan: Annotated[bool, typer.Option("--plan", help="Check the config, print what would run, and stop.")] = False,
    data: Annotated[
        Path | None,
        typer.Option(help="Folder that relative paths of `data` start from; by default the config file's."),
    ] = None,
    output: Annotated[Path | None, typer.Option(help="Folder of the run; by default runs/train/NAME-seedSEED.")] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", help="A value that goes before the file's, e.g. training.steps=100; may be repeated."),
    ] = None,
) -> None:
    """Train one variant with checkpoints, and score the best on dev; run it again to go on after an end."""
    from umie.experiments.parts import absent
    from umie.experiments.run_config import read_run

    config = read_run(config_file, settings or (), read_files=not plan)
    root = config_file.parent if data is None else data
    if not root.is_dir():
        raise UmieError(f"--data {root}: no such folder")
    if output is None:
        output = Path("runs") / "train" / f"{config.grid.name}-seed{config.seed}"
    if plan:
        _print_plan(config, output, absent(config.grid, root))
        return
    from umie.experiments.run import run_training
    from umie.reports.run import write_run_report

    is_main = int(os.environ.get("RANK", 0)) == 0
    try:
        with TrainDisplay(quiet=not is_main) as display:
            run = run_training(config, root=root, output=output, display=display)
    except KeyboardInterrupt as error:
        err.print("umie: interrupted; run the same command to go on from the last checkpoint")
        raise typer.Exit(130) from error
    if not is_main:
        return
    page = write_run_report(run)
    if out.is_terminal:
        out.print(Markdown(page))
    else:
        sys.stdout.write(page)
    what = (
        "best/, last/, report.md, scores.json, curves.png, gates.png, predictions/"
        if run.metrics
        else "checkpoints, report.md"
    )
    out.print(f"\nWritten to {output}: {what}", highlight=False, markup=False, soft_wrap=True)


train.__doc__ = f"{train.__doc__}\n{_EXAMPLE}"


def _print_plan(config: object, output: Path, lacking: list[str]) -> None:
    import dataclasses
    from typing import Any

    run: Any = config
    table = Table("key", "value")
    cell = run.cell("", read_files=False)
    for slot, options in cell.parts.items():
        table.add_row(slot, str(options))
    for name, value in dataclasses.asdict(run.training).items():
        table.add_row(f"training.{name}", str(value))
    for name, value in dataclasses.asdict(run.checkpoints).items():
        table.add_row(f"checkpoints.{name}", str(value))
    for name in ("preset", "start_from", "seed", "max_input_tokens", "max_target_tokens"):
        table.add_row(name, str(getattr(run, name)))
    out.print(table)
    out.print(f"the run goes to {output}", highlight=False, markup=False)
    for what in lacking:
        out.print(f"lacking: {what}", highlight=False, markup=False, soft_wrap=True)
