"""The audit of a data set: overlaps, known versions and leaks in prompts; and copies without overlapping records."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from umie.audit.fingerprints import Comparison, compare, fingerprint, known_versions
from umie.audit.overlap import Overlap, Split, overlaps, read_split
from umie.audit.prompts import PromptReport, examine_prompts, schema_of
from umie.audit.texts import THRESHOLD
from umie.data.source import Source
from umie.errors import UmieError, check_choice
from umie.files import check_distinct, is_same_file
from umie.records import write_jsonl

MATCHES = {"text": ("text",), "near": ("text", "near_text"), "image": ("image_name", "image_bytes")}


@dataclass(frozen=True)
class Audit:
    """The results of an audit."""

    threshold: float  # the minimum Jaccard similarity of near-duplicate texts
    splits: Sequence[Split]  # the splits of the data set, then the other files
    overlaps: Sequence[Overlap]
    versions: Mapping[str, Sequence[Comparison]]  # for each of the splits, the known versions that it matches
    prompts: Sequence[PromptReport]  # one per task

    def summary(self) -> dict[str, Any]:
        """Return all results in the form of their JSON file."""
        return {
            "threshold": self.threshold,
            "splits": [split.summary() for split in self.splits],
            "overlaps": [overlap.summary() for overlap in self.overlaps],
            "versions": {name: [asdict(item) for item in found] for name, found in self.versions.items()},
            "prompts": [report.summary() for report in self.prompts],
        }


def audit_splits(
    splits: Mapping[str, Source],
    against: Iterable[Source] = (),
    *,
    threshold: float = THRESHOLD,
    versions: Path | None = None,
    progress: Callable[[], None] = lambda: None,
) -> Audit:
    """Audit the splits of a data set, by name, such as ``train``; each is compared with the splits before it.

    They are also compared with the files of other data sets in ``against``, and with a table of known ``versions``, by
    default that of the library. ``threshold`` is the minimum Jaccard similarity of near-duplicate texts. ``progress``
    is called once per record.

    Raises:
        UmieError: there are no splits, a file is used twice, or a file or the table cannot be read.
    """
    if not splits:
        raise UmieError("nothing to audit: specify at least one split")
    others = list(against)
    check_distinct([source.path for source in (*splits.values(), *others)])
    names = short_names([source.path for source in others], taken=splits)
    files = {**splits, **dict(zip(names, others, strict=True))}
    table = known_versions(versions)
    read = [read_split(name, source, progress) for name, source in files.items()]
    found = {name: compare(fingerprint(source.named(), name), table) for name, source in files.items()}
    schema = schema_of(record for source in splits.values() for record in source.records())
    prompts = examine_prompts((record for source in splits.values() for record in source.records()), schema)
    pairs = [(right, left) for right in range(len(splits)) for left in range(right)]  # a split with those before it
    pairs += [(split, split) for split in range(len(splits))]
    for other in range(len(splits), len(files)):
        for split in range(len(splits)):
            pairs += [(split, other), (other, split)]
    return Audit(threshold, read, overlaps(read, threshold=threshold, pairs=pairs), found, prompts)


@dataclass(frozen=True)
class Cleaning:
    """The result of cleaning a file."""

    num_records: int  # of the file
    removed: Sequence[tuple[str, str]]  # id of each removed record, in the order of the file, and the reason


def clean_file(
    source: Source,
    against: Sequence[Source],
    output: Path,
    *,
    match: Iterable[str] = ("near",),
    threshold: float = THRESHOLD,
    progress: Callable[[], None] = lambda: None,
) -> Cleaning:
    """Write the records of a file, such as a training set, that do not occur in other files, such as test sets.

    ``match`` determines when two records are the same: ``text``, ``near`` (the same text, or one with a Jaccard
    similarity of at least ``threshold``), ``image`` (the same file name or bytes). ``progress`` is called per record.

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
    if any(is_same_file(output, path) for path in paths):
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


def short_names(paths: Sequence[Path], taken: Container[str] = ()) -> list[str]:
    """Return a unique name, which is not ``taken``, for each of different paths: its last parts, at least two."""
    names = []
    for path in paths:
        for length in range(2, len(path.parts) + 2):
            name = "/".join(path.parts[-length:])
            if name not in taken and sum("/".join(other.parts[-length:]) == name for other in paths) == 1:
                break
        names.append(name)
    return names
