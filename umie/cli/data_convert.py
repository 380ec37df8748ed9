"""`umie data convert`: any format to JSONL."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from umie.cli.console import out
from umie.cli.options import Format, Images, MappingFile, Regions, counting, not_none, tell
from umie.errors import UmieError

if TYPE_CHECKING:
    from umie.records import Record


def convert(
    input_file: Annotated[Path, typer.Option("--input", "-i", help="One split file of the data set.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The JSONL file to write.")],
    format_name: Format = "jsonl",
    images: Images = None,
    regions: Regions = None,
    mapping: MappingFile = None,
    skip_bad: Annotated[
        bool, typer.Option("--skip-bad", help="Leave out records that cannot be read, and list each with its place.")
    ] = False,
) -> None:
    """Convert one file of a published data set to JSONL, one record a line.

    The first record that cannot be read ends it with exit code 2, and nothing is written; --skip-bad lists such
    records on standard error and goes on. Without --images no image is sought, and formats other than JSONL name
    none.

    Example:
        umie data convert --format twitter --input twitter2017/train.txt --output tw17/train.jsonl --images images
        umie data convert --format mnre --input mnre_txt/train.txt --output mnre/train.jsonl
    """
    from umie.data.source import Source
    from umie.records import write_jsonl

    if output.exists() and input_file.exists() and output.samefile(input_file):
        raise UmieError(f"{output}: is the input itself: give --output another name")
    line = re.compile(re.escape(str(input_file)) + r":\d+: ")
    skipped = 0
    before = ""

    def skip(error: UmieError) -> None:
        nonlocal skipped, before
        place = line.match(str(error))
        skipped += place is None or place[0] != before  # JSONL names every error of a line
        before = place[0] if place else ""
        tell(f"left out: {' '.join(str(error).split())}")

    source = Source(input_file, format_name, images, regions, mapping)
    counts: Counter[str] = Counter()
    with counting(f"converting {input_file.name}") as count:
        records = source.records(on_error=skip if skip_bad else None)
        counted = _counted(records, counts, count, seek=images is not None)
        missing = f"{input_file}: holds no records that can be read: give a file of records"
        write_jsonl(output, not_none(counted, missing))
    out.print(_summary(counts), highlight=False, markup=False, soft_wrap=True)
    if skip_bad:
        out.print(f"left out: {skipped:,}", highlight=False, markup=False)
    out.print(f"Written: {output}", highlight=False, markup=False, soft_wrap=True)


def _counted(
    records: Iterator[Record], counts: Counter[str], count: Callable[[], None], seek: bool
) -> Iterator[Record]:
    from umie.audit.images import Presence, presence

    for record in records:
        counts["records"] += 1
        counts["entities"] += len(record.entities)
        counts["relations"] += len(record.relations)
        counts["events"] += len(record.events)
        counts["regions"] += len(record.regions)
        if record.image is not None:
            counts["images named"] += 1
            if seek:
                counts["found" if presence(record) is Presence.FOUND else "missing"] += 1
        count()
        yield record


def _summary(counts: Counter[str]) -> str:
    parts = [f"records: {counts['records']:,}"]
    parts += [f"{name}: {counts[name]:,}" for name in ("entities", "relations", "events", "regions") if counts[name]]
    if counts["found"] or counts["missing"]:
        parts.append(f"images: {counts['found']:,} found, {counts['missing']:,} missing")
    else:
        parts.append(f"images named: {counts['images named']:,} (not sought)")
    return "; ".join(parts)
