"""Known versions of data sets, and how a file relates to them.

The table ``known_versions.json`` is made by ``umie data fingerprint``; docs/data.md shows the commands.
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
from umie.files import decode_utf8

KNOWN = Path(__file__).with_name("known_versions.json")
FEW = 0.9  # share of differing buckets up to which their number tells how many items differ
LEAST_SHARED = 0.05  # share of texts in common, of the smaller file, from which two files are said to overlap
_ARRAYS = {"text_buckets": ("<u4", BUCKETS), "annotation_buckets": ("<u4", BUCKETS), "smallest": ("<u8", SMALLEST)}
_ORDER = ("same", "edited labels", "edited texts", "overlap")


@dataclass(frozen=True)
class Comparison:
    """How a file relates to a known version.

    Args:
        name: the version.
        verdict: ``same``; ``edited labels`` (the texts agree, the annotation does not); ``edited texts`` (a few
            texts differ, are missing or were added); ``overlap`` (many do, and some are shared).
        records: the number of records of the version.
        texts: how many texts differ, missing and added ones together; an estimate unless it is 0; None where they
            are too many to tell.
        annotations: how many records differ in text or annotation; an estimate unless it is 0; None where they are
            too many to tell.
        shared: share of the smaller file's texts that the other has, 0..1; an estimate unless the texts agree.
        labels: by task, the labels whose number of uses changed, as ``(known, here)``.
    """

    name: str
    verdict: str
    records: int
    texts: int | None
    annotations: int | None
    shared: float
    labels: Mapping[str, Mapping[str, tuple[int, int]]]


def compare(found: Fingerprint, known: Iterable[Fingerprint]) -> list[Comparison]:
    """Return the known versions that a file is a copy of or overlaps with, the closest first."""
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
        if shared < LEAST_SHARED:
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
    """Return about what share of the smaller file's texts the other one holds.

    Source: bottom-k sketches (Cohen and Kaplan 2007): the k smallest hashes of the union are a sample of it.
    """
    left, right = (set(unpacked(item.smallest, "<u8").tolist()) for item in (found, version))
    union = sorted(left | right)[:SMALLEST]
    if not left or not right:
        return 0.0
    jaccard = sum(value in left and value in right for value in union) / len(union)
    common = jaccard / (1 + jaccard) * (found.distinct + version.distinct)
    return min(1.0, common / min(found.distinct, version.distinct))


def known_versions(path: Path | None = None) -> list[Fingerprint]:
    """Return the versions of a table, by default of the one that comes with the library.

    Raises:
        UmieError: the table cannot be read or is no list of fingerprints.
    """
    path = path or KNOWN
    try:
        data = json.loads(decode_utf8(path.read_bytes()))
    except OSError as error:
        raise UmieError(f"{path}: cannot read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise UmieError(f"{path}: not valid JSON: {error}") from error
    if not isinstance(data, list):
        raise UmieError(f"{path}: is {shown(data)}: expected a list of fingerprints")
    return [_fingerprint(item, f"{path}: entry {number}") for number, item in enumerate(data)]


def to_json(fingerprints: Iterable[Fingerprint]) -> str:
    """Return a table of versions as ``known_versions`` reads it."""
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
            raise UmieError(f"{place}: {name} holds {numbers} numbers: expected {size}")
    return Fingerprint(**data)


def _differing(left: str, right: str) -> int:
    return int(np.count_nonzero(unpacked(left, "<u4") != unpacked(right, "<u4")))


def _items(differing: int) -> int:
    """Return about how many items fell into that many buckets: the maximum-likelihood estimate."""
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
