"""`umie data features`: encode every image once, into a feature cache that grids and programs read."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from umie.cli.console import out
from umie.cli.options import Format, FormatOptions, Images, Regions, num_with_image, source_of, tell
from umie.cli.progress import counting
from umie.errors import UmieError
from umie.types import check_image_policy

if TYPE_CHECKING:
    from umie.encoders import CachedEncoder

SHOWN = 3  # unreadable images printed; the file lists all of them


def features(
    input_file: Annotated[Path, typer.Option("--input", "-i", help="The records whose images to encode.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The cache directory; existing entries are kept.")],
    encoder: Annotated[str, typer.Option(help="Name of a frozen encoder: resnet101_roi, clip or a custom one.")],
    option: Annotated[
        list[str] | None,
        typer.Option(help="Encoder option as NAME=VALUE; repeatable. `umie list ENCODER` shows them."),
    ] = None,
    format_name: Format = "jsonl",
    images: Images = None,
    regions: Regions = None,
    format_option: FormatOptions = None,
    missing_images: Annotated[
        str,
        typer.Option(help="For an image that cannot be read: skip or text_only lists it, error stops the command."),
    ] = "skip",
    quarantine: Annotated[
        Path | None,
        typer.Option(help="JSONL file that lists unreadable images; by default unreadable-INPUT.jsonl in the cache."),
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Images per forward pass.")] = 8,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1; by default a GPU if there is one.")] = None,
) -> None:
    """Encode the images of a data set, with their regions, and keep the features.

    Images that are already in the cache are not encoded again, so an interrupted run can simply be restarted. An entry
    is identified by the image's bytes, the regions, and the encoder's options and weights. A grid reads the cache if
    its `features: {folder: ...}` is this directory; in Python, use `CachedEncoder`. Trainable encoders (tiny) and
    encoders that read files (precomputed) have no features to keep.

    Example:
        umie data features -i train.jsonl -o cache --encoder resnet101_roi
        umie data features -i a.jsonl -o cache --encoder clip --option mode=crop
    """
    check_image_policy(missing_images)
    from umie.encoders import CachedEncoder, FeatureCache
    from umie.encoders.cache.cached_encoder import fill_from_records, write_unreadable

    source = source_of(input_file, format_name, images, regions, format_option)
    total = num_with_image(source)
    cached = CachedEncoder(_build(encoder, option or [], device), FeatureCache(output, on_event=tell))
    started = time.perf_counter()
    try:
        with counting("encoding", total, unit="images") as advance:
            unreadable = fill_from_records(
                cached, source.named(), missing_images=missing_images, batch_size=batch_size, on_record=advance
            )
    except KeyboardInterrupt as error:
        tell(f"umie: interrupted; the {cached.calls:,} images encoded so far are kept; run it again to continue")
        raise typer.Exit(130) from error
    _print_report(cached, total, len(unreadable), time.perf_counter() - started)
    file = output / f"unreadable-{input_file.stem}.jsonl" if quarantine is None else quarantine
    write_unreadable(file, unreadable)
    if unreadable:
        reasons = list(dict.fromkeys(item.reason for item in unreadable))
        tell(f"{len(unreadable):,} records have an image that cannot be read; see {file}:", style="yellow")
        for reason in reasons[:SHOWN]:
            tell(f"  {reason}")
        if len(reasons) > SHOWN:
            tell(f"  and {len(reasons) - SHOWN:,} more images")
    if len(unreadable) == total:
        raise UmieError(f"{input_file}: none of the images could be read: pass their directory as --images")


def _build(name: str, options: list[str], device: str | None) -> Any:
    """Return the encoder with its weights, on the device."""
    import torch

    from umie.cli.part_options import part_options
    from umie.encoders import registry

    torch.manual_seed(0)  # random weights, useful for trials only, must be the same in a restarted run
    encoder: Any = registry.build(name, **part_options(options))
    if encoder.config.has_random_weights:
        option = encoder.config.weights_option
        tell(
            f"{name} has random weights: use --option {option}=... to load pretrained ones (see `umie list {name}`)",
            style="yellow",
        )
    try:
        return encoder.to(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    except (RuntimeError, AssertionError) as error:
        raise UmieError(f"--device {device}: {str(error).splitlines()[0]}") from error


def _print_report(cached: CachedEncoder, total: int, num_unreadable: int, seconds: float) -> None:
    stats = cached.cache.stats
    num_entries, num_bytes = cached.cache.size()
    rate = f", {cached.calls / seconds:,.1f} per second" if cached.calls else ""
    lines = [
        f"records with an image: {total:,}; hits: {stats.hits:,}, misses: {total - stats.hits:,}; images encoded: "
        f"{cached.calls:,}{rate}; records whose image cannot be read: {num_unreadable:,}",
        f"read: {_size(stats.read_bytes)}, written: {_size(stats.written_bytes)}; damaged and encoded again: "
        f"{stats.corrupted:,}, not written: {stats.write_failures:,}",
        f"the cache holds {num_entries:,} entries, {_size(num_bytes)}: {cached.cache.folder}",
    ]
    for line in lines:
        out.print(line, highlight=False, markup=False, soft_wrap=True)


def _size(num_bytes: int) -> str:
    from rich.filesize import decimal

    return str(decimal(num_bytes))
