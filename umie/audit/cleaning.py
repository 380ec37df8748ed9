"""Write a copy of a file without the records that also occur in other files."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from umie.audit.audit import short_names
from umie.audit.overlap import overlaps, read_split
from umie.audit.texts import THRESHOLD
from umie.data.source import Source
from umie.errors import UmieError, check_choice
from umie.files import check_distinct
from umie.records import write_jsonl

MATCHES = {"text": ("text",), "near": ("text", "near_text"), "image": ("image_name", "image_bytes")}


@dataclass(frozen=True)
class Cleaning:
    """The result of cleaning a file.

    Args:
        num_records: the number of records of the file.
        removed: ``(id, reason)`` of each removed record, in the order of the file.
    """

    num_records: int
    removed: Sequence[tuple[str, str]]


def clean_file(
    source: Source,
    against: Sequence[Source],
    output: Path,
    *,
    match: Iterable[str] = ("near",),
    threshold: float = THRESHOLD,
    progress: Callable[[], None] = lambda: None,
) -> Cleaning:
    """Write the records of a file that do not occur in other files.

    Args:
        source: the file to clean, such as a training set.
        against: the files whose records are removed, such as test sets.
        output: the JSONL file to write; not one of the inputs.
        match: when two records are the same: ``text``, ``near`` (the same or a similar text), ``image``.
        threshold: the minimum Jaccard similarity of near-duplicate texts.
        progress: called once per record.

    Raises:
        UmieError: ``match`` is unknown, a file is used twice, ``output`` is an input, or a file cannot be read.
    """
    kinds: list[str] = []
    for name in match:
        check_choice("match", name, MATCHES)
        kinds += MATCHES[name]
    sources = [source, *against]
    paths = [item.path for item in sources]
    check_distinct(paths)
    if output.exists() and any(path.exists() and output.samefile(path) for path in paths):
        raise UmieError(f"{output}: is an input; choose another output")
    splits = [read_split(name, item, progress) for name, item in zip(short_names(paths), sources, strict=True)]
    reasons: dict[int, str] = {}
    for overlap in overlaps(splits, threshold=threshold, pairs=[(0, other) for other in range(1, len(splits))]):
        for kind in kinds:
            for position, ids in overlap.matches[kind].items():
                reasons.setdefault(position, f"{kind.replace('_', ' ')} of {ids[0]} in {overlap.right}")
    write_jsonl(output, (record for position, record in enumerate(source.records()) if position not in reasons))
    ids = splits[0].ids
    return Cleaning(len(ids), [(ids[position], reasons[position]) for position in sorted(reasons)])
