"""`umie data regions`: regions for the images of a data set, from a proposer."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from umie.cli.console import out
from umie.cli.options import Format, Images, MappingFile, Regions, counting_to, not_none, num_with_image, tell
from umie.errors import UmieError
from umie.types import check_image_policy

if TYPE_CHECKING:
    from umie.encoders.regions import Proposer
    from umie.records import Record


def regions(
    input_file: Annotated[Path, typer.Option("--input", "-i", help="One split file of the data set.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The JSONL file to write.")],
    proposer: Annotated[str, typer.Option("--proposer", "-p", help="faster_rcnn, file, grid, grounding, or a plugin.")],
    option: Annotated[
        list[str] | None,
        typer.Option(
            "--option",
            help="Option of the proposer, NAME=VALUE, e.g. top=10; repeat for more. `umie list NAME` shows them.",
        ),
    ] = None,
    format_name: Format = "jsonl",
    images: Images = None,
    regions: Regions = None,
    mapping: MappingFile = None,
    missing_images: Annotated[
        str,
        typer.Option(help="What an image does that cannot be read: error ends it; text_only; skip. See above."),
    ] = "error",
    draw: Annotated[Path | None, typer.Option(help="Folder for images with their regions drawn into them.")] = None,
    draw_number: Annotated[int, typer.Option(min=1, help="How many images --draw writes, the first ones.")] = 20,
) -> None:
    """Give the records of a file regions, and write them as JSONL, with the images named as before.

    Regions that a record has stay, and come first, since arguments name them by number; what is proposed comes behind
    them, best first. Options are those of the proposer's Config: top, nms, min_score for each; weights, model, min_size
    for faster_rcnn; checkpoint, phrases for grounding; scales for grid; path, format, boxes for file.

    The first image that cannot be read ends it with exit code 2, and nothing is written. With --missing-images
    text_only its record is written as it is, with skip it is left out; each such image is named on standard error.
    Annotation that cannot be read (of the proposer file) is treated as its image, and counted by itself.

    Example:
        umie data regions -i train.jsonl -o with_regions.jsonl -p grid --images images
        umie data regions -i train.jsonl -o with_regions.jsonl -p faster_rcnn --option weights=COCO_V1 --option top=20
        umie data regions -i train.jsonl -o with_regions.jsonl -p file --option path=xml --draw look
    """
    check_image_policy(missing_images)
    from umie.data.source import Source
    from umie.records import write_jsonl

    if output.exists() and input_file.exists() and output.samefile(input_file):
        raise UmieError(f"{output}: is the input itself: give --output another name")
    source = Source(input_file, format_name, images, regions, mapping)
    source.check()
    part = _built(proposer, option or [])
    counts: Counter[str] = Counter()
    with counting_to(num_with_image(source), f"regions of {input_file.name}") as count:
        records = _filled(source.records(), part, missing_images, counts, count)
        if draw is not None:
            records = _drawn(records, draw, draw_number, counts)
        missing = f"{input_file}: holds no records that could be written: give a file of records with their images"
        write_jsonl(output, not_none(records, missing))
    for line in _summary(counts, part.counts, draw):
        out.print(line, highlight=False, markup=False, soft_wrap=True)
    out.print(f"Written: {output}", highlight=False, markup=False, soft_wrap=True)


def _built(name: str, given: list[str]) -> Proposer:
    import torch
    from transformers.utils import logging

    from umie.cli.part_options import part_options
    from umie.encoders.regions import registry

    logging.disable_progress_bar()  # of loading weights, beside our own
    options = part_options(given)
    registry.check(name, options)
    torch.manual_seed(0)  # random weights, which serve tries only, shall be the same every time
    part = registry.build(name, **options)
    if getattr(part.config, "weights", "") is None:
        tell(f"the weights of {name} are random: name some with --option weights=...", style="yellow")
    return part


def _filled(
    records: Iterator[Record],
    part: Proposer,
    policy: str,
    counts: Counter[str],
    count: Callable[[], None],
) -> Iterator[Record]:
    """Yield the records with regions, by the policy for images that cannot be read."""
    from umie.encoders.regions import AnnotationError

    current: list[Record] = []
    unreadable: set[object] = set()
    failed = ""  # what of the last record could not be read

    def watched() -> Iterator[Record]:
        for record in records:
            current[:] = [record]
            yield record

    def on_error(error: UmieError) -> None:
        nonlocal failed
        failed = "annotation" if isinstance(error, AnnotationError) else "image"
        image = current[0].image
        if image not in unreadable:  # an image is counted once, however many records name it
            unreadable.add(image)
            counts[f"{failed}: unreadable"] += 1
            tell(f"{failed} cannot be read: {' '.join(str(error).split())}")

    for filled in part.fill(watched(), None if policy == "error" else on_error):
        left_out = failed and policy == "skip"
        counts[f"{failed}: left out" if left_out else "records"] += 1
        counts["images"] += filled.image is not None and not left_out
        counts["proposals"] += max(0, len(filled.regions) - len(current[0].regions))
        counts["cut"] += max(0, len(current[0].regions) - len(filled.regions))
        if filled.image is not None:
            count()
        failed = ""
        if not left_out:
            yield filled


def _drawn(records: Iterator[Record], folder: Path, most: int, counts: Counter[str]) -> Iterator[Record]:
    """Yield the records, and write the first images that can be read with their regions."""
    from umie.encoders.images import open_image
    from umie.encoders.regions.drawing import draw_regions
    from umie.files import atomic_write

    for record in records:
        if record.image is not None and counts["drawn"] < most:
            try:
                path = record.image_path()
                assert path is not None  # what is read from a file holds no image in memory
                image = draw_regions(open_image(path), record.regions)
            except UmieError:
                pass  # has been told, or the proposer did without the image
            else:
                counts["drawn"] += 1
                with atomic_write(folder / f"{counts['drawn']:04d}_{path.stem[:100]}.png", "wb") as file:
                    image.save(file, "PNG")
        yield record


def _summary(counts: Counter[str], found: Counter[str], draw: Path | None) -> Iterator[str]:
    parts = [f"{name}: {counts[name]:,}" for name in ("records", "images", "proposals")]
    if counts["cut"]:
        parts.append(f"regions cut: {counts['cut']:,}")
    yield "; ".join([*parts, *(f"{name}: {number:,}" for name, number in sorted(found.items()))])
    for kind in ("image", "annotation"):
        unreadable, left_out = counts[f"{kind}: unreadable"], counts[f"{kind}: left out"]
        records = f", their records left out: {left_out:,}" if left_out else ""
        if unreadable or kind == "image":
            yield f"{kind}s that cannot be read: {unreadable:,}{records}"
    if draw is not None:
        yield f"Drawn: {counts['drawn']:,} images in {draw}"
