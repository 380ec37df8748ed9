"""`umie data mask`: captions in which the type of one mention must be seen in the image."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Annotated

import typer

from umie.cli.console import print_line
from umie.cli.data_split import DevShare, SplitFolder, TestShare, check_outputs, read_all
from umie.cli.options import Format, FormatOptions, Images, Regions, source_of
from umie.errors import UmieError


def mask(
    input_file: Annotated[Path, typer.Argument(help="Captions whose entities have regions.")],
    output: SplitFolder,
    format_name: Format = "jsonl",
    images: Images = None,
    regions: Regions = None,
    format_option: FormatOptions = None,
    types: Annotated[int, typer.Option(min=2, help="Number of types: the most frequent heads of mentions.")] = 12,
    word: Annotated[str, typer.Option(help="What replaces the mention.")] = "something",
    dev: DevShare = 0.1,
    test: TestShare = 0.2,
    seed: Annotated[int, typer.Option(help="Random seed.")] = 0,
) -> None:
    """Replace one mention of each caption by a neutral word, so that its type must come from the image.

    The type of a mention is its head: its last word, in the singular ("a young child" becomes child). Only the most
    frequent heads are types; captions without one of them, or that name it elsewhere, are left out.

    Example:
        umie data mask records.jsonl --format flickr_entities --images images --output masked
    """
    from umie.data.masking import mask_mentions
    from umie.data.splitting import check_shares
    from umie.records import write_jsonl

    if not word.strip():
        raise UmieError("--word is empty: use a word such as something")
    shares = check_shares(dev, test)
    check_outputs(output, input_file)
    records = read_all(source_of(input_file, format_name, images, regions, format_option), input_file.name)
    masked = mask_mentions(records, num_types=types, word=word, shares=shares, seed=seed)
    for split, own in masked.splits.items():
        path = output / f"{split}.jsonl"
        write_jsonl(path, own)
        counts = Counter(record.entities[0].type for record in own)
        frequent = max(masked.types, key=counts.__getitem__)
        share = counts[frequent] / len(own)
        print_line(f"{split}: {len(own):,} records in {path}; most frequent type: {frequent} ({100 * share:.1f}%)")
    print_line(f"types: {', '.join(f'{name} {number:,}' for name, number in masked.types.items())}")
    print_line(f"left out: {masked.num_left_out:,} records without a mention of these types")
