"""`umie data`: work with data sets."""

from __future__ import annotations

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

app = typer.Typer(
    help="Work with data sets: convert, check, count, look at, compare.",
    no_args_is_help=True,
    rich_markup_mode="markdown",  # the examples of the help are its code blocks
)
for command in (convert, regions, validate, stats, sample, audit, clean, fingerprint, features):
    app.command(command.__name__)(command)


@app.command("synthetic")
def synthetic(
    folder: Annotated[Path, typer.Argument(help="Where to write train.jsonl, dev.jsonl, test.jsonl and images.")],
    seed: Annotated[int, typer.Option(help="Everything is drawn from it.")] = 0,
    train: Annotated[int, typer.Option(help="Number of training records.")] = 3000,
    dev: Annotated[int, typer.Option(help="Number of dev records.")] = 300,
    test: Annotated[int, typer.Option(help="Number of test records.")] = 900,
    image_share: Annotated[float, typer.Option(help="Share of records that only the image decides.")] = 0.62,
) -> None:
    """Draw the embedded data set into a folder, as JSONL with PNG images, and print its ceilings.

    Example:
        umie data synthetic embedded --seed 0 --train 300 --dev 30 --test 90
    """
    from umie.data.synthetic import SyntheticConfig, ceilings, write_synthetic

    config = SyntheticConfig(seed=seed, train=train, dev=dev, test=test, image_share=image_share)
    files = write_synthetic(folder, config)
    for split, path in files.items():
        out.print(f"{split}: {getattr(config, split)} records in {path}", highlight=False, markup=False)
    shown = ", ".join(f"{task.upper()} {ceiling:.3f}" for task, ceiling in ceilings(config).items())
    out.print(f"ceiling of text alone: {shown}", highlight=False)
