"""The audit of a data set: overlaps of its splits, known versions of its files, and leaks in its prompts."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from umie.audit.fingerprints import fingerprint
from umie.audit.known_versions import Comparison, compare, known_versions
from umie.audit.overlap import Overlap, Split, overlaps, read_split
from umie.audit.prompts import PromptReport, examine_prompts, schema_of
from umie.audit.texts import THRESHOLD
from umie.data.source import Source
from umie.errors import UmieError
from umie.files import check_distinct


@dataclass(frozen=True)
class Audit:
    """The results of an audit.

    Args:
        threshold: the minimum Jaccard similarity of near-duplicate texts.
        splits: the splits of the data set, then the other files.
        overlaps: the overlaps of pairs of splits.
        versions: for each split and other file, the known versions that it matches.
        prompts: one report per task.
    """

    threshold: float
    splits: Sequence[Split]
    overlaps: Sequence[Overlap]
    versions: Mapping[str, Sequence[Comparison]]
    prompts: Sequence[PromptReport]

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
    """Audit the splits of a data set.

    Args:
        splits: the files of the splits by name, such as ``train``; each is compared with the splits before it.
        against: files of other data sets to compare the splits with.
        threshold: the minimum Jaccard similarity of near-duplicate texts.
        versions: a table of known versions; by default, the table of the library.
        progress: called once per record.

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
    compared = overlaps(read, threshold=threshold, pairs=_pairs(len(splits), len(others)))
    return Audit(threshold, read, compared, found, prompts)


def short_names(paths: Sequence[Path], taken: Container[str] = ()) -> list[str]:
    """Return a unique name for each path: its last parts, at least two of them.

    Args:
        paths: different paths.
        taken: names that may not be used.
    """
    names = []
    for path in paths:
        for length in range(2, len(path.parts) + 2):
            name = "/".join(path.parts[-length:])
            if name not in taken and sum("/".join(other.parts[-length:]) == name for other in paths) == 1:
                break
        names.append(name)
    return names


def _pairs(num_splits: int, num_others: int) -> list[tuple[int, int]]:
    """Return later splits with earlier ones, each split with itself, then splits and other files in both directions."""
    pairs = [(right, left) for right in range(num_splits) for left in range(right)]
    pairs += [(split, split) for split in range(num_splits)]
    for other in range(num_splits, num_splits + num_others):
        for split in range(num_splits):
            pairs += [(split, other), (other, split)]
    return pairs
