"""`umie data features` and `regions`: encode the images of a data set, and add regions to its records."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.filesize import decimal

from umie.cli.console import print_line, print_note, print_notes
from umie.cli.options import (
    A_MEDIUM,
    Device,
    Format,
    FormatOptions,
    Images,
    JsonlOutput,
    Regions,
    not_none,
    num_with,
    part_options,
    source_of,
)
from umie.cli.progress import counting, disable_progress_bars
from umie.errors import UmieError
from umie.records import Medium
from umie.records.places import PLURALS
from umie.types import check_image_policy

if TYPE_CHECKING:
    from umie.registry import Registry

PartOptions = Annotated[
    list[str] | None,
    typer.Option(help="Option of the part as NAME=VALUE, e.g. top=10; repeatable. `umie list NAME` shows them."),
]
MANY = 0.05  # share of boxes without area that suggests another form of boxes
SHOWN = 3  # unreadable images printed; the file lists all of them


def features(
    input_file: Annotated[Path, typer.Option("--input", "-i", help="The records whose media to encode.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The cache directory; existing entries are kept.")],
    encoder: Annotated[
        str, typer.Option(help="Name of a frozen encoder: clip, transformers_audio, ... or a custom one.")
    ],
    option: PartOptions = None,
    format_name: Format = "jsonl",
    images: Images = None,
    regions: Regions = None,
    format_option: FormatOptions = None,
    missing_images: Annotated[
        str, typer.Option(help="For an image that cannot be read: skip or text_only lists it, error stops the command.")
    ] = "skip",
    quarantine: Annotated[
        Path | None,
        typer.Option(help="JSONL file that lists unreadable images; by default unreadable-INPUT.jsonl in the cache."),
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Images per forward pass.")] = 8,
    device: Device = None,
) -> None:
    """Encode the images, videos or sounds of a data set, with their places, and keep the features.

    What is already in the cache is not encoded again, so an interrupted run can simply be restarted. An entry is
    identified by the bytes of the image, its regions, and the encoder's options and weights. A grid reads the cache if
    its `features: {folder: ...}` is this directory; in Python, use `CachedEncoder`. Trainable encoders (tiny) and
    encoders that read files (precomputed) have no features to keep.

    Example:
        umie data features -i train.jsonl -o cache --encoder resnet101_roi
        umie data features -i a.jsonl -o cache --encoder clip --option mode=crop
    """
    check_image_policy(missing_images)
    import torch

    from umie.encoders import CachedEncoder, FeatureCache, registry
    from umie.encoders.cache.cached_encoder import fill_from_records, write_unreadable

    source = source_of(input_file, format_name, images, regions, format_option)
    part = _build(registry, encoder, option)
    medium: Medium = part.medium
    plural, one = PLURALS[medium], A_MEDIUM[medium]
    total = num_with(source, medium)
    try:
        part = part.to(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    except (RuntimeError, AssertionError) as error:
        raise UmieError(f"--device {device}: {str(error).splitlines()[0]}") from error
    cache = FeatureCache(output, on_event=print_note)
    cached = CachedEncoder(part, cache)
    started = time.perf_counter()
    try:
        with counting("encoding", total, unit=plural) as advance:
            unreadable = fill_from_records(
                cached, source.named(), missing_images=missing_images, batch_size=batch_size, on_record=advance
            )
    except KeyboardInterrupt as error:
        done = f"the {cached.calls:,} {plural} encoded so far are kept"
        print_note(f"umie: interrupted; {done}; run it again to continue")
        raise typer.Exit(130) from error
    seconds, stats, (num_entries, num_bytes) = time.perf_counter() - started, cache.stats, cache.size()
    rate = f", {cached.calls / seconds:,.1f} per second" if cached.calls else ""
    print_line(
        f"records with {one}: {total:,}; hits: {stats.hits:,}, misses: {total - stats.hits:,}; {plural} encoded: "
        f"{cached.calls:,}{rate}; records whose {plural[:-1]} cannot be read: {len(unreadable):,}"
    )
    print_line(
        f"read: {decimal(stats.read_bytes)}, written: {decimal(stats.written_bytes)}; damaged and encoded again: "
        f"{stats.corrupted:,}, not written: {stats.write_failures:,}"
    )
    print_line(f"the cache holds {num_entries:,} entries, {decimal(num_bytes)}: {cache.folder}")
    file = output / f"unreadable-{input_file.stem}.jsonl" if quarantine is None else quarantine
    write_unreadable(file, unreadable)
    if unreadable:
        reasons = list(dict.fromkeys(item.reason for item in unreadable))
        print_note(f"{len(unreadable):,} records have {one} that cannot be read; see {file}:", "yellow")
        for reason in reasons[:SHOWN]:
            print_note(f"  {reason}")
        if len(reasons) > SHOWN:
            print_note(f"  and {len(reasons) - SHOWN:,} more {plural}")
    if len(unreadable) == total:
        raise UmieError(f"{input_file}: none of the {plural} could be read: pass their directory as --images")


def regions(
    input_file: Annotated[Path, typer.Option("--input", "-i", help="A split file of the data set.")],
    output: JsonlOutput,
    proposer: Annotated[
        str, typer.Option("--proposer", "-p", help="faster_rcnn, file, grid, grounding, or a plugin's name.")
    ],
    option: PartOptions = None,
    format_name: Format = "jsonl",
    images: Images = None,
    regions: Regions = None,
    format_option: FormatOptions = None,
    missing_images: Annotated[
        str, typer.Option(help="For an image that cannot be read: error (stop), text_only or skip; see above.")
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
    from umie.encoders.regions import registry
    from umie.encoders.regions.annotate import AnnotateStats, annotate
    from umie.encoders.regions.annotate import draw as drawn
    from umie.encoders.regions.base import NO_AREA
    from umie.records import write_jsonl
    from umie.records.notes import collected_notes

    if output.exists() and input_file.exists() and output.samefile(input_file):
        raise UmieError(f"{output}: is the input file: choose another --output")
    source = source_of(input_file, format_name, images, regions, format_option)
    source.check()
    part = _build(registry, proposer, option)
    stats = AnnotateStats()
    with (
        collected_notes() as notes,
        counting(f"regions of {input_file.name}", num_with(source, "image"), unit="images") as advance,
    ):
        records = annotate(
            source.records(),
            part,
            stats,
            missing_images=missing_images,
            on_unreadable=lambda kind, error: print_note(f"{kind} cannot be read: {' '.join(str(error).split())}"),
            on_image=advance,
        )
        if draw is not None:
            records = drawn(records, draw, draw_number, stats)
        write_jsonl(
            output, not_none(records, f"{input_file}: no record has an image that can be read: nothing is written")
        )
    counts = {"records": stats.records, "images": stats.images, "proposals": stats.proposals}
    if stats.cut:
        counts["regions cut"] = stats.cut
    found = [f"{name}: {number:,}" for name, number in counts.items()]
    clipped = {"boxes clipped to the image": part.num_clipped} if part.num_clipped else {}
    for name, number in sorted({**part.counts, **clipped}.items()):
        share = f" of {part.num_boxes:,} ({number / part.num_boxes:.1%})" if name.startswith("boxes") else ""
        found.append(f"{name}: {number:,}{share}")
    print_line("; ".join(found))
    print_notes(notes)
    if part.counts[NO_AREA] > MANY * part.num_boxes:
        print_note("warning: if boxes are x, y, width and height, set --option boxes=xywh (JSON files)", "yellow")
    for kind in ("image", "annotation"):
        unreadable, left_out = stats.unreadable[kind], stats.left_out[kind]
        if unreadable or kind == "image":
            more = f", their records left out: {left_out:,}" if left_out else ""
            print_line(f"{kind}s that cannot be read: {unreadable:,}{more}")
    if draw is not None:
        print_line(f"Drawn: {stats.drawn:,} images in {draw}")
    print_line(f"Written: {output}")


def _build(registry: Registry[Any], name: str, given: list[str] | None) -> Any:
    """Return an encoder or a proposer with its weights; warn if they are random."""
    import torch

    disable_progress_bars()
    torch.manual_seed(0)  # random weights, useful for trials only, must be the same in every run
    part = registry.build(name, **part_options(given or ()))
    if part.config.has_random_weights:
        option = part.config.weights_option
        to_set = "the options of its encoder" if option is None else f"--option {option}=..."
        print_note(f"{name} has random weights: use {to_set} to load pretrained ones", "yellow")
    return part
