"""`umie data convert`: any format to JSONL."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from umie.cli.console import out
from umie.cli.options import Format, FormatOptions, Images, Regions, not_none, source_of, tell
from umie.cli.progress import counting
from umie.errors import UmieError

if TYPE_CHECKING:
    from umie.records import Record


def convert(
    input_file: Annotated[Path, typer.Option("--input", "-i", help="The file of one split.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The JSONL file to write.")],
    format_name: Format = "jsonl",
    images: Images = None,
    regions: Regions = None,
    format_option: FormatOptions = None,
    skip_bad: Annotated[bool, typer.Option("--skip-bad", help="Skip and list records that cannot be read.")] = False,
) -> None:
    """Convert a file of a published data set to JSONL, one record per line.

    A record that cannot be read ends the command with exit code 2, and nothing is written; with --skip-bad, such
    records are listed on standard error and skipped. Without --images, records of formats other than JSONL have no
    images.

    Example:
        umie data convert --format mnre --input train.txt --output train.jsonl
        umie data convert -f twitter -i train.txt -o train.jsonl --images images
    """
    from umie.records import write_jsonl

    if output.exists() and input_file.exists() and output.samefile(input_file):
        raise UmieError(f"{output}: is the input; choose another --output")
    line = re.compile(re.escape(str(input_file)) + r":\d+: ")
    skipped = 0
    before = ""

    def skip(error: UmieError) -> None:
        nonlocal skipped, before
        place = line.match(str(error))
        skipped += place is None or place[0] != before  # JSONL reports every error of a line
        before = place[0] if place else ""
        tell(f"skipped: {' '.join(str(error).split())}")

    source = source_of(input_file, format_name, images, regions, format_option)
    counts: Counter[str] = Counter()
    with counting(f"converting {input_file.name}") as count:
        records = source.records(on_error=skip if skip_bad else None)
        counted = _counted(records, counts, count, check_images=images is not None)
        missing = f"{input_file}: contains no records that can be read"
        write_jsonl(output, not_none(counted, missing))
    out.print(_summary(counts), highlight=False, markup=False, soft_wrap=True)
    if skip_bad:
        out.print(f"skipped: {skipped:,}", highlight=False, markup=False)
    out.print(f"Written: {output}", highlight=False, markup=False, soft_wrap=True)


def _counted(
    records: Iterator[Record], counts: Counter[str], count: Callable[[], None], check_images: bool
) -> Iterator[Record]:
    from umie.audit.images import Presence, presence

    for record in records:
        counts["records"] += 1
        counts["entities"] += len(record.entities)
        counts["relations"] += len(record.relations)
        counts["events"] += len(record.events)
        counts["regions"] += len(record.regions)
        if record.image is not None:
            counts["images"] += 1
            if check_images:
                counts["found" if presence(record) is Presence.FOUND else "missing"] += 1
        count()
        yield record


def _summary(counts: Counter[str]) -> str:
    parts = [f"records: {counts['records']:,}"]
    parts += [f"{name}: {counts[name]:,}" for name in ("entities", "relations", "events", "regions") if counts[name]]
    if counts["found"] or counts["missing"]:
        parts.append(f"images: {counts['found']:,} found, {counts['missing']:,} missing")
    else:
        parts.append(f"images: {counts['images']:,} (not checked)")
    return "; ".join(parts)
