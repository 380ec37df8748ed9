"""`umie data features`: encode every image once, into a feature cache that grids and programs read."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from umie.cli.console import out
from umie.cli.options import Format, Images, MappingFile, Regions, counting_to, num_with_image, tell
from umie.errors import UmieError
from umie.types import check_image_policy

if TYPE_CHECKING:
    from umie.data.source import Source
    from umie.encoders import CachedEncoder, FeatureCache
    from umie.records import Record

SHOWN = 3  # unreadable images named on the terminal; the file names all
GIGABYTE = 10**9


def features(
    input_file: Annotated[Path, typer.Option("--input", "-i", help="The records whose images to encode.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of the cache; what is there is kept.")],
    encoder: Annotated[str, typer.Option(help="Name of a frozen encoder: resnet101_roi, clip or your own.")],
    option: Annotated[
        list[str] | None,
        typer.Option(help="NAME=VALUE, an option of the encoder; repeat for more. `umie list ENCODER` shows them."),
    ] = None,
    format_name: Format = "jsonl",
    images: Images = None,
    regions: Regions = None,
    mapping: MappingFile = None,
    missing_images: Annotated[
        str,
        typer.Option(help="What an image does that cannot be read: skip or text_only, it is listed; error ends it."),
    ] = "skip",
    quarantine: Annotated[
        Path | None,
        typer.Option(help="JSONL file that lists unreadable images; by default unreadable-INPUT.jsonl in the cache."),
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Images in one pass.")] = 8,
    max_gb: Annotated[
        float | None, typer.Option(help="Keep the cache below this size; longest unused features go first.")
    ] = None,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1; by default a GPU where there is one.")] = None,
) -> None:
    """Encode the images of a data set once, regions and all, and keep the features.

    What is in the cache already is not encoded again, so that a run which was killed is simply started again. An
    entry is known by the image's bytes, the regions, the encoder's options and its weights. A grid whose
    `features: {folder: ...}` names the folder reads it; so does `CachedEncoder` in Python. Encoders that learn (tiny)
    or read files (precomputed) have nothing to keep.

    Example:
        umie data features --input train.jsonl --encoder resnet101_roi --option weights=IMAGENET1K_V2
            --option mode=align --output features
        umie data features --format gmner --input txt/train.txt --images images --regions xml --encoder clip
            --option model=ViT-B-32 --option pretrained=openai --output features
    """
    check_image_policy(missing_images)
    if max_gb is not None and max_gb <= 0:
        raise UmieError(f"--max-gb is {max_gb:g}: give a number above 0, or leave it out")
    from umie.data.source import Source
    from umie.encoders import CachedEncoder, FeatureCache

    source = Source(input_file, format_name, images, regions, mapping)
    total = num_with_image(source)
    part = _encoder(encoder, option or [], device)
    max_bytes = None if max_gb is None else round(max_gb * GIGABYTE)
    with FeatureCache(output, max_bytes=max_bytes, on_event=tell) as cache:
        cached = CachedEncoder(part, cache)
        started = time.perf_counter()
        try:
            bad = _fill(cached, source, total, missing_images, batch_size)
        except KeyboardInterrupt as error:
            tell(f"umie: interrupted; the {cached.calls:,} images encoded so far are kept, run it again to go on")
            raise typer.Exit(130) from error
        _report(cached, cache, total, bad, time.perf_counter() - started)
    file = output / f"unreadable-{input_file.stem}.jsonl" if quarantine is None else quarantine
    if bad or file.exists():  # what an earlier run listed and was mended since shall not stand there
        _write(file, bad)
    if bad:
        reasons = list(dict.fromkeys(line["reason"] for line in bad))
        tell(f"{len(bad):,} records have an image that cannot be read, all listed in {file}:", style="yellow")
        for reason in reasons[:SHOWN]:
            tell(f"  {reason}")
        if len(reasons) > SHOWN:
            tell(f"  and {len(reasons) - SHOWN:,} more images")
    if len(bad) == total:
        raise UmieError(f"{input_file}: no image could be read: give their folder as --images")


def _encoder(name: str, options: list[str], device: str | None) -> Any:
    """Return the frozen encoder, with its weights, on the device."""
    import torch

    from umie.cli.part_options import part_options
    from umie.encoders import registry

    torch.manual_seed(0)  # random weights, which serve tries only, shall be the same when the run is started again
    part: Any = registry.build(name, **part_options(options))
    if part.config.has_random_weights:
        option = next(field for field in ("weights", "pretrained") if hasattr(part.config, field))
        tell(f"the weights of {name} are random: name some, --option {option}=... (`umie list {name}`)", style="yellow")
    try:
        return part.to(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    except (RuntimeError, AssertionError) as error:
        raise UmieError(f"--device {device}: {str(error).splitlines()[0]}") from error


def _fill(
    cached: CachedEncoder, source: Source, total: int, policy: str, batch_size: int
) -> list[dict[str, str | None]]:
    """Encode what is missing, with a progress bar; return the unreadable images."""
    bad: list[dict[str, str | None]] = []
    waiting: dict[int, Record] = {}  # those that fill has asked for and not yet told of

    def items() -> Iterator[tuple[Any, Any]]:
        index = 0
        for record in source.named():
            if record.image is None:
                continue
            try:
                image = record.image_path()
            except UmieError as error:  # it leaves its folder
                refuse(record, error)
                advance()
                continue
            waiting[index] = record
            index += 1
            yield image, record.regions

    def refuse(record: Record, error: UmieError) -> None:
        if policy == "error":
            raise UmieError(f"record {record.id!r}: {error}; mend it, or give --missing-images skip") from error
        bad.append({"id": record.id, "image": str(record.image), "reason": str(error)})

    def finish(index: int) -> None:
        del waiting[index]
        advance()

    with counting_to(total, "encoding") as advance:
        cached.fill(
            items(),
            batch_size=batch_size,
            on_item=finish,
            on_error=lambda index, error: refuse(waiting[index], error),
        )
    return bad


def _report(
    cached: CachedEncoder, cache: FeatureCache, total: int, bad: list[dict[str, str | None]], seconds: float
) -> None:
    """Print what was found and made."""
    stats = cache.stats
    rate = f", {cached.calls / seconds:,.1f} a second" if cached.calls else ""
    lines = [
        f"records with an image: {total:,}; hits: {stats.hits:,}, misses: {total - stats.hits:,}; images encoded: "
        f"{cached.calls:,}{rate}; records whose image cannot be read: {len(bad):,}",
        f"read: {_size(stats.read_bytes)}, written: {_size(stats.written_bytes)}; removed for space: "
        f"{stats.evicted:,}, damaged and made anew: {stats.corrupted:,}, not written: {stats.write_failures:,}",
        f"the cache holds {cache.num_entries:,} entries, {_size(cache.num_bytes)}: {cache.folder}",
    ]
    for line in lines:
        out.print(line, highlight=False, markup=False, soft_wrap=True)


def _size(num_bytes: int) -> str:
    from rich.filesize import decimal

    return str(decimal(num_bytes))


def _write(file: Path, bad: list[dict[str, str | None]]) -> None:
    from umie.files import atomic_write

    with atomic_write(file) as stream:
        stream.writelines(json.dumps(line, ensure_ascii=False) + "\n" for line in bad)
