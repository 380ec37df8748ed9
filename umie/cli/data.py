"""`umie data`: work with data sets."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Annotated

import typer

from umie.cli.console import out
from umie.cli.data_audit import audit, clean, fingerprint
from umie.cli.data_convert import convert
from umie.cli.data_features import features
from umie.cli.data_regions import regions
from umie.cli.data_sample import sample
from umie.cli.data_stats import stats
from umie.cli.data_validate import validate
from umie.cli.help import reflowed


def synthetic(
    folder: Annotated[Path, typer.Argument(help="Directory for train.jsonl, dev.jsonl, test.jsonl and images.")],
    seed: Annotated[int, typer.Option(help="Random seed.")] = 0,
    train: Annotated[int, typer.Option(help="Number of training records.")] = 3000,
    dev: Annotated[int, typer.Option(help="Number of dev records.")] = 300,
    test: Annotated[int, typer.Option(help="Number of test records.")] = 900,
    image_share: Annotated[float, typer.Option(help="Share of records that require the image.")] = 0.62,
) -> None:
    """Generate the embedded data set as JSONL with PNG images.

    Also prints the best F1 of each task that a model without images can reach.

    Example:
        umie data synthetic embedded --train 300 --dev 30 --test 90
    """
    from umie.data.synthetic import SyntheticConfig, ceilings, write_synthetic

    config = SyntheticConfig(seed=seed, train=train, dev=dev, test=test, image_share=image_share)
    files = write_synthetic(folder, config)
    for split, path in files.items():
        out.print(f"{split}: {getattr(config, split)} records in {path}", highlight=False, markup=False)
    shown = ", ".join(f"{task.upper()} {ceiling:.3f}" for task, ceiling in ceilings(config).items())
    out.print(f"best F1 of text only: {shown}", highlight=False)


app = typer.Typer(help="Work with data sets: convert, check, count, inspect, compare.", no_args_is_help=True)
for command in (convert, regions, validate, stats, sample, audit, clean, fingerprint, features, synthetic):
    app.command(command.__name__, help=reflowed(inspect.getdoc(command) or ""))(command)
