"""Comparison of files with known versions of published data sets.

The table ``known_versions.json`` is written by ``umie data fingerprint``; docs/data.md lists the commands.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from umie.audit.fingerprints import BUCKETS, SMALLEST, Fingerprint, unpacked
from umie.errors import UmieError, check_keys, shown
from umie.files import read_json

KNOWN = Path(__file__).with_name("known_versions.json")
FEW = 0.9  # share of different buckets up to which their number estimates the number of different items
MIN_SHARED = 0.05  # share of the texts of the smaller file from which two files overlap
_ARRAYS = {"text_buckets": ("<u4", BUCKETS), "annotation_buckets": ("<u4", BUCKETS), "smallest": ("<u8", SMALLEST)}
_ORDER = ("same", "edited labels", "edited texts", "overlap")


@dataclass(frozen=True)
class Comparison:
    """The relation of a file to a known version.

    Args:
        name: the name of the version.
        verdict: ``same``; ``edited labels`` (the texts agree, the annotation does not); ``edited texts`` (a few texts
            are different, missing or added); ``overlap`` (many are different, some are shared).
        records: the number of records of the version.
        texts: the number of missing and added texts; an estimate unless it is 0; None if it is too large to estimate.
        annotations: the number of records with another text or annotation; an estimate unless it is 0; None if it is
            too large to estimate.
        shared: the share (0..1) of the texts of the smaller file that are in the other; an estimate unless all are.
        labels: by task, the labels with a different number of uses, as ``(known, here)``.
    """

    name: str
    verdict: str
    records: int
    texts: int | None
    annotations: int | None
    shared: float
    labels: Mapping[str, Mapping[str, tuple[int, int]]]


def compare(found: Fingerprint, known: Iterable[Fingerprint]) -> list[Comparison]:
    """Return the known versions that a file is a copy of or overlaps with, closest first."""
    comparisons = [_compare(found, version) for version in known]
    return sorted(
        (item for item in comparisons if item is not None), key=lambda item: (_ORDER.index(item.verdict), -item.shared)
    )


def _compare(found: Fingerprint, version: Fingerprint) -> Comparison | None:
    texts = _differing(found.text_buckets, version.text_buckets)
    annotations = _differing(found.annotation_buckets, version.annotation_buckets)
    few = texts <= FEW * BUCKETS and min(found.records, version.records) > texts / 2
    if found.texts == version.texts:
        shared = 1.0
        num_texts: int | None = 0
        verdict = "same" if found.annotated == version.annotated else "edited labels"
    else:
        shared = _shared(found, version)
        if shared < MIN_SHARED:
            return None
        num_texts = _items(texts) if few else None
        verdict = "edited texts" if few else "overlap"
    return Comparison(
        name=version.name,
        verdict=verdict,
        records=version.records,
        texts=num_texts,
        annotations=_items(annotations) if annotations <= FEW * BUCKETS else None,
        shared=shared,
        labels=_changed(version.labels, found.labels) if verdict.startswith("edited") else {},
    )


def _shared(found: Fingerprint, version: Fingerprint) -> float:
    """Return an estimate of the share of the smaller file's texts that are in the other file.

    Source: bottom-k sketches (Cohen and Kaplan 2007): the k smallest hashes of the union are a random sample of it.
    """
    left, right = (set(unpacked(item.smallest, "<u8").tolist()) for item in (found, version))
    union = sorted(left | right)[:SMALLEST]
    if not left or not right:
        return 0.0
    jaccard = sum(value in left and value in right for value in union) / len(union)
    common = jaccard / (1 + jaccard) * (found.distinct + version.distinct)
    return min(1.0, common / min(found.distinct, version.distinct))


def known_versions(path: Path | None = None) -> list[Fingerprint]:
    """Return the versions of a table, by default of the table of the library.

    Raises:
        UmieError: the table cannot be read or is not a list of fingerprints.
    """
    path = path or KNOWN
    data = read_json(path, "a list of fingerprints")
    if not isinstance(data, list):
        raise UmieError(f"{path}: is {shown(data)}: expected a list of fingerprints")
    return [_fingerprint(item, f"{path}: entry {number}") for number, item in enumerate(data)]


def to_json(fingerprints: Iterable[Fingerprint]) -> str:
    """Return a table of versions in the form that ``known_versions`` reads."""
    return json.dumps([asdict(item) for item in fingerprints], ensure_ascii=False, indent=1) + "\n"


def _fingerprint(data: object, place: str) -> Fingerprint:
    fields = tuple(Fingerprint.__dataclass_fields__)
    if not isinstance(data, dict) or set(data) != set(fields):
        check_keys(f"{place}: key", data if isinstance(data, dict) else (), fields)
        raise UmieError(f"{place}: is {shown(data)}: expected an object with {', '.join(fields)}")
    for name, (kind, size) in _ARRAYS.items():
        try:
            numbers = len(unpacked(data[name], kind))
        except (ValueError, TypeError) as error:
            raise UmieError(f"{place}: {name} is {shown(data[name])}: expected numbers in base64") from error
        if numbers > size or (numbers < size and name != "smallest"):
            raise UmieError(f"{place}: {name} has {numbers} numbers: expected {size}")
    return Fingerprint(**data)


def _differing(left: str, right: str) -> int:
    return int(np.count_nonzero(unpacked(left, "<u4") != unpacked(right, "<u4")))


def _items(differing: int) -> int:
    """Return the maximum likelihood estimate of the number of items that fell into this many buckets."""
    return round(math.log1p(-differing / BUCKETS) / math.log1p(-1 / BUCKETS))


def _changed(
    known: Mapping[str, Mapping[str, int]], found: Mapping[str, Mapping[str, int]]
) -> dict[str, dict[str, tuple[int, int]]]:
    result = {}
    for task in sorted({*known, *found}):
        before, after = known.get(task, {}), found.get(task, {})
        changes = {
            label: (before.get(label, 0), after.get(label, 0))
            for label in sorted({*before, *after})
            if before.get(label, 0) != after.get(label, 0)
        }
        if changes:
            result[task] = changes
    return result
