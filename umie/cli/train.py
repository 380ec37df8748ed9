"""`umie train`: train one variant from a config file."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from umie.cli.console import out, print_line, print_note, show_page
from umie.cli.options import DataRoot, Plugins, Settings, data_root_of
from umie.cli.progress import Display

if TYPE_CHECKING:
    from umie.experiments.config import RunConfig


def train(
    config_file: Annotated[Path, typer.Argument(help="The config (YAML); see examples/train_*.yaml.")],
    plan: Annotated[bool, typer.Option("--plan", help="Check and print the config without running it.")] = False,
    data_root: DataRoot = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Output directory; by default runs/train/NAME-seedSEED.")
    ] = None,
    settings: Settings = None,
    plugins: Plugins = None,
) -> None:
    """Train one variant from a config file, with checkpoints, and score the best one.

    The config is a YAML file; docs/training.md describes its keys.

        umie train examples/train_embedded.yaml
        umie train my.yaml --set training.num_train_epochs=5 --set fusion.gate=0.1
        torchrun --nproc_per_node 8 -m umie train my.yaml

    The output directory contains the models best/ and last/ (for umie evaluate, umie extract and
    UmieModel.from_pretrained), checkpoints, predictions and report.md. To resume a stopped run, run the same command
    again. `preset: paper-base` (paper-large, paper-xl) in the config uses the values of the paper.

    Exit code: 0 trained, 2 bad input, a loss that is not finite, or a full disk.
    """
    from umie.experiments.expand import read_run
    from umie.registry import load_plugins

    load_plugins(plugins or ())
    config = read_run(config_file, settings or ())
    if plugins:
        config = config.model_copy(update={"plugins": (*config.plugins, *map(str, plugins))})
    root = data_root_of(data_root, config_file)
    if output is None:
        output = Path("runs") / "train" / f"{config.name}-seed{config.seed}"
    from umie.experiments.identity import check_output
    from umie.experiments.parts import check_parts, missing_files

    check_output(output)
    if plan:
        check_parts([config], read_files=False)
        missing = missing_files([config], root)
        _print_plan(config, output)
        for what in missing:
            print_note(f"umie: missing: {what}")
        if missing:
            raise typer.Exit(2)
        check_parts([config], read_files=config.start_from is None)
        _print_data(config, root)
        return
    check_parts([config], read_files=config.start_from is None)
    from umie.experiments.run import run_training
    from umie.reports.run import write_run_report
    from umie.reports.style import check_figures

    check_figures()

    is_main = int(os.environ.get("RANK", 0)) == 0
    try:
        with Display(quiet=not is_main) as display:
            run = run_training(config, root=root, output=output, progress=display)
    except KeyboardInterrupt as error:
        print_note("umie: interrupted; run the same command again to resume from the last checkpoint, if there is one")
        raise typer.Exit(130) from error
    if not is_main:
        return
    show_page(write_run_report(run))
    written = "best/, last/, report.md, scores.json, figures, predictions/" if run.metrics else "checkpoints, report.md"
    print_line(f"\nWritten to {output}: {written}")


def _print_data(config: RunConfig, root: Path) -> None:
    """Read the data as the run does, and print the number of records of each data set."""
    from umie.experiments.run import prepare_data
    from umie.experiments.training_queries import plan_queries

    with Display() as display, tempfile.TemporaryDirectory() as scratch:
        corpus, _ = prepare_data(config, root, Path(scratch), display)
        notes = plan_queries(config, corpus)
    for name, one in corpus.sets.items():
        sizes = ", ".join(f"{split} {count}" for split, count in one.num_records.items())
        print_line(f"records{'' if corpus.is_single else f' of {name}'}: {sizes}")
        for line in one.overlap():
            print_note(f"umie: warning: {name}: {line}")
    for line in notes:
        print_note(f"umie: warning: {line}")


def _print_plan(run: RunConfig, output: Path) -> None:
    table = Table("key", "value")
    parts = dict(run.parts)
    if run.start_from is not None:  # the decoder is that of the variant to continue from
        from umie.files import read_json

        decoder = read_json(Path(run.start_from) / "config.json", "the configuration of a variant")["decoder"]
        parts["decoder"] = {key: value for key, value in decoder.items() if not isinstance(value, dict)}
    for slot, options in parts.items():
        table.add_row(slot, str(options))
    for medium, options in (run.grounders or {}).items():
        table.add_row(f"grounders.{medium}", str(options))
    for section in ("training", "checkpoints"):
        for name, value in dict(getattr(run, section) or {}).items():
            table.add_row(f"{section}.{name}", str(value))
    for name in ("preset", "start_from", "seed", "max_input_tokens", "max_target_tokens"):
        table.add_row(name, str(getattr(run, name)))
    out.print(table)
    print_line(f"output: {output}")
