"""`umie data regions`: add regions from a proposer to the records of a data set."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from umie.cli.console import out
from umie.cli.options import (
    Format,
    FormatOptions,
    Images,
    Regions,
    not_none,
    num_with_image,
    source_of,
    tell,
)
from umie.cli.progress import counting
from umie.errors import UmieError
from umie.types import check_image_policy

if TYPE_CHECKING:
    from umie.encoders.regions import Proposer
    from umie.encoders.regions.annotate import AnnotateStats


def regions(
    input_file: Annotated[Path, typer.Option("--input", "-i", help="A split file of the data set.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The JSONL file to write.")],
    proposer: Annotated[
        str, typer.Option("--proposer", "-p", help="faster_rcnn, file, grid, grounding, or a plugin's name.")
    ],
    option: Annotated[
        list[str] | None,
        typer.Option(
            "--option",
            help="Proposer option as NAME=VALUE, e.g. top=10; repeatable. `umie list NAME` shows them.",
        ),
    ] = None,
    format_name: Format = "jsonl",
    images: Images = None,
    regions: Regions = None,
    format_option: FormatOptions = None,
    missing_images: Annotated[
        str,
        typer.Option(help="For an image that cannot be read: error (stop), text_only or skip; see above."),
    ] = "error",
    draw: Annotated[Path | None, typer.Option(help="Directory for images with their regions drawn.")] = None,
    draw_number: Annotated[int, typer.Option(min=1, help="Number of images that --draw writes.")] = 20,
) -> None:
    """Add proposed regions to the records of a file, and write the records as JSONL.

    A record keeps its own regions, and they come first, because arguments refer to regions by number; proposals follow,
    best first. The options are those of the proposer's Config: top, nms, min_score for all; weights, model, min_size
    for faster_rcnn; checkpoint, phrases for grounding; scales for grid; path, format, boxes for file.

    The first image that cannot be read stops the command with exit code 2, and nothing is written. With
    --missing-images text_only its record is written unchanged, with skip it is left out; each such image is named on
    standard error. An annotation that cannot be read (proposer file) is treated the same way and counted separately.

    Example:
        umie data regions -i train.jsonl -o new.jsonl -p grid --images images
        umie data regions -i train.jsonl -o new.jsonl -p faster_rcnn --draw look
        umie data regions -i train.jsonl -o new.jsonl -p file --option path=xml
    """
    check_image_policy(missing_images)
    from umie.encoders.regions.annotate import AnnotateStats, annotate
    from umie.encoders.regions.annotate import draw as drawn
    from umie.records import write_jsonl

    if output.exists() and input_file.exists() and output.samefile(input_file):
        raise UmieError(f"{output}: is the input file: choose another --output")
    source = source_of(input_file, format_name, images, regions, format_option)
    source.check()
    part = _build(proposer, option or [])
    stats = AnnotateStats()
    with counting(f"regions of {input_file.name}", num_with_image(source), unit="images") as advance:
        records = annotate(
            source.records(),
            part,
            stats,
            missing_images=missing_images,
            on_unreadable=lambda kind, error: tell(f"{kind} cannot be read: {' '.join(str(error).split())}"),
            on_image=advance,
        )
        if draw is not None:
            records = drawn(records, draw, draw_number, stats)
        write_jsonl(
            output, not_none(records, f"{input_file}: no record has an image that can be read: nothing is written")
        )
    for line in _summary(stats, part.counts, draw):
        out.print(line, highlight=False, markup=False, soft_wrap=True)
    out.print(f"Written: {output}", highlight=False, markup=False, soft_wrap=True)


def _build(name: str, given: list[str]) -> Proposer:
    import torch
    from transformers.utils import logging

    from umie.cli.part_options import part_options
    from umie.encoders.regions import registry

    logging.disable_progress_bar()  # of loading weights; this command shows its own
    options = part_options(given)
    registry.check(name, options)
    torch.manual_seed(0)  # random weights, useful for trials only, must be the same in every run
    part = registry.build(name, **options)
    if part.config.has_random_weights:
        option = part.config.weights_option
        tell(f"{name} has random weights: use --option {option}=... to load pretrained ones", style="yellow")
    return part


def _summary(stats: AnnotateStats, dropped: Counter[str], draw: Path | None) -> Iterator[str]:
    parts = [f"records: {stats.records:,}", f"images: {stats.images:,}", f"proposals: {stats.proposals:,}"]
    if stats.cut:
        parts.append(f"regions cut: {stats.cut:,}")
    yield "; ".join([*parts, *(f"{name}: {number:,}" for name, number in sorted(dropped.items()))])
    for kind in ("image", "annotation"):
        unreadable, left_out = stats.unreadable[kind], stats.left_out[kind]
        if unreadable or kind == "image":
            records = f", their records left out: {left_out:,}" if left_out else ""
            yield f"{kind}s that cannot be read: {unreadable:,}{records}"
    if draw is not None:
        yield f"Drawn: {stats.drawn:,} images in {draw}"
