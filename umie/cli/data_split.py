"""`umie data split`: training, dev and test splits that share no image."""

from __future__ import annotations

import random
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from umie.cli.console import print_line
from umie.cli.options import Format, FormatOptions, Images, Regions, source_of
from umie.cli.progress import counting
from umie.errors import UmieError
from umie.files import is_same_file
from umie.types import SPLITS

if TYPE_CHECKING:
    from umie.data.source import Source
    from umie.records import Record

DevShare = Annotated[float, typer.Option(min=0.01, max=0.5, help="Share of the images in the dev split.")]
TestShare = Annotated[float, typer.Option(min=0.01, max=0.5, help="Share of the images in the test split.")]
SplitFolder = Annotated[Path, typer.Option("--output", "-o", help="Directory for train.jsonl, dev.jsonl, test.jsonl.")]


def split(
    input_file: Annotated[Path, typer.Argument(help="The records to divide.")],
    output: SplitFolder,
    format_name: Format = "jsonl",
    images: Images = None,
    regions: Regions = None,
    format_option: FormatOptions = None,
    shuffle_regions: Annotated[
        bool, typer.Option("--shuffle-regions", help="Put the regions of each record into random order.")
    ] = False,
    dev: DevShare = 0.1,
    test: TestShare = 0.2,
    seed: Annotated[int, typer.Option(help="Random seed.")] = 0,
) -> None:
    """Divide records into splits, so that no split has an image of another.

    Where regions are stored in the order of their mentions, shuffle them: a model could guess from their numbers.

    Example:
        umie data split records.jsonl --format flickr_entities --images images --shuffle-regions --output pointing
    """
    from umie.data.splitting import check_shares, split_by_image, with_shuffled_regions
    from umie.records import write_jsonl

    shares = check_shares(dev, test)
    check_outputs(output, input_file)
    records = read_all(source_of(input_file, format_name, images, regions, format_option), input_file.name)
    rng = random.Random(seed)
    for name, own in split_by_image(records, shares, rng=rng).items():
        if not own:
            raise UmieError(f"the {name} split is empty: use more records or other shares")
        if shuffle_regions:
            own = [with_shuffled_regions(record, rng) for record in own]
        path = output / f"{name}.jsonl"
        write_jsonl(path, own)
        print_line(f"{name}: {len(own):,} records in {path}")


def read_all(source: Source, name: str) -> list[Record]:
    """Return the records of a source, with a counter while they are read."""
    records = []
    with counting(f"reading {name}") as count:
        for record in source.named():
            records.append(record)
            count()
    return records


def check_outputs(output: Path, input_file: Path) -> None:
    """Raise UmieError if a split would replace the input."""
    for path in (output / f"{split}.jsonl" for split in SPLITS):
        if is_same_file(path, input_file):
            raise UmieError(f"{path}: is the input; choose another --output")
