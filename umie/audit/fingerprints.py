"""Fingerprints of files: they identify copies and edited versions of a data set without containing its texts.

A fingerprint consists of sums of hashes. It does not depend on the order of the records, whitespace, images, boxes, ids
or the file format, so a converted or re-tokenized copy is still recognized. Files are compared with the known versions
of published data sets in ``known_versions.json``, which ``umie data fingerprint`` writes; docs/data.md lists the
commands.
"""

from __future__ import annotations

import base64
import heapq
import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from umie.audit.checks import all_tasks
from umie.errors import UmieError, check_keys, shown
from umie.files import json_text, read_json
from umie.records import Record, Span

BUCKETS = 256
SMALLEST = 128
KNOWN = Path(__file__).with_name("known_versions.json")
FEW = 0.9  # share of different buckets up to which their number estimates the number of different items
MIN_SHARED = 0.05  # share of the texts of the smaller file from which two files overlap
_MASK = 2**64 - 1
_ARRAYS = {"text_buckets": ("<u4", BUCKETS), "annotation_buckets": ("<u4", BUCKETS), "smallest": ("<u8", SMALLEST)}
_ORDER = ("same", "edited labels", "edited texts", "overlap")


@dataclass(frozen=True)
class Fingerprint:
    """The fingerprint of one version of a file.

    Records are assigned to 256 buckets by the hash of their text. The sum of the hashes in a bucket, modulo 2^32, shows
    whether the bucket is different in another file; the number of different buckets estimates that of different texts.
    """

    name: str  # of the version, e.g. ``Twitter-17 train``
    records: int
    distinct: int  # number of distinct texts
    texts: str  # the sum of the 128-bit hashes of all texts, in hexadecimal
    annotated: str  # the same sum for texts with their annotation
    text_buckets: str  # the sums of the buckets (base64)
    annotation_buckets: str  # the same for texts with their annotation
    smallest: str  # the 128 smallest 64-bit hashes of the texts (base64, ascending), a sample of them
    labels: Mapping[str, Mapping[str, int]]  # the number of uses of each label, by task


@dataclass(frozen=True)
class Comparison:
    """The relation of a file to a known version.

    The verdict is ``same``; ``edited labels`` (the texts agree, the annotation does not); ``edited texts`` (a few texts
    are different, missing or added); or ``overlap`` (many are different, some are shared). Numbers of different texts
    and annotations are estimates unless they are 0, and None if they are too large to estimate.
    """

    name: str
    verdict: str
    records: int  # of the version
    texts: int | None  # missing and added texts
    annotations: int | None  # records with another text or annotation
    shared: float  # share (0..1) of the texts of the smaller file that are in the other; an estimate unless all are
    labels: Mapping[str, Mapping[str, tuple[int, int]]]  # by task, differing numbers of uses: known, here


def fingerprint(records: Iterable[Record], name: str = "") -> Fingerprint:
    """Return the fingerprint of an iterable of records, which is consumed once."""
    number = texts = annotated = 0
    buckets = {"text": np.zeros(BUCKETS, dtype=np.uint32), "annotation": np.zeros(BUCKETS, dtype=np.uint32)}
    distinct: set[int] = set()
    labels: dict[str, Counter[str]] = {}
    for record in records:
        number += 1
        key = "".join(record.text.split())
        text_hash = _hash(key)
        annotation_hash = _hash(json.dumps([key, _annotation(record)], ensure_ascii=False))
        texts += text_hash
        annotated += annotation_hash
        bucket = text_hash % BUCKETS
        with np.errstate(over="ignore"):  # the sums wrap around on purpose
            buckets["text"][bucket] += np.uint32(text_hash >> 64 & 0xFFFFFFFF)
            buckets["annotation"][bucket] += np.uint32(annotation_hash >> 64 & 0xFFFFFFFF)
        distinct.add(text_hash & _MASK)
        for task_name, task in all_tasks().items():
            for label in task.used_labels(record):
                labels.setdefault(task_name, Counter())[label] += 1
    return Fingerprint(
        name=name,
        records=number,
        distinct=len(distinct),
        texts=f"{texts % 2**128:032x}",
        annotated=f"{annotated % 2**128:032x}",
        text_buckets=_packed(buckets["text"]),
        annotation_buckets=_packed(buckets["annotation"]),
        smallest=_packed(np.array(heapq.nsmallest(SMALLEST, distinct), dtype="<u8")),
        labels={task: dict(sorted(counter.items())) for task, counter in sorted(labels.items())},
    )


def compare(found: Fingerprint, known: Iterable[Fingerprint]) -> list[Comparison]:
    """Return the known versions that a file is a copy of or overlaps with, closest first."""
    comparisons = [item for version in known if (item := _compare(found, version)) is not None]
    return sorted(comparisons, key=lambda item: (_ORDER.index(item.verdict), -item.shared))


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
    return json_text([asdict(item) for item in fingerprints], indent=1) + "\n"


def _annotation(record: Record) -> list[Any]:
    """Return the annotation of the text in a canonical order, with spans counted in non-whitespace characters.

    Entities and relations without spans are left out, as arguments in media are.
    """
    places = [0]
    for character in record.text:
        places.append(places[-1] + (not character.isspace()))

    def span(given: Span | None) -> list[int] | None:
        return None if given is None else [places[given[0]], places[given[1]]]

    events = []
    for event in record.events:  # without arguments in the image, which depend on whether its file exists
        arguments = sorted([item.role, span(item.span)] for item in event.arguments if item.span is not None)
        events.append(json.dumps([event.type, span(event.trigger), arguments], ensure_ascii=False))
    return [
        sorted([item.type, span(item.span)] for item in record.entities if item.span is not None),
        sorted([item.type, span(item.head), span(item.tail)] for item in record.relations if item.head and item.tail),
        sorted(events),
    ]


def _hash(text: str) -> int:
    return int.from_bytes(blake2b(text.encode(), digest_size=16).digest(), "big")


def _packed(values: NDArray[Any]) -> str:
    return base64.b64encode(values.tobytes()).decode()


def _unpacked(text: str, kind: str) -> NDArray[Any]:
    return np.frombuffer(base64.b64decode(text, validate=True), dtype=kind)


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
    left, right = (set(_unpacked(item.smallest, "<u8").tolist()) for item in (found, version))
    union = sorted(left | right)[:SMALLEST]
    if not left or not right:
        return 0.0
    jaccard = sum(value in left and value in right for value in union) / len(union)
    common = jaccard / (1 + jaccard) * (found.distinct + version.distinct)
    return min(1.0, common / min(found.distinct, version.distinct))


def _fingerprint(data: object, place: str) -> Fingerprint:
    fields = tuple(Fingerprint.__dataclass_fields__)
    if not isinstance(data, dict) or set(data) != set(fields):
        check_keys(f"{place}: key", data if isinstance(data, dict) else (), fields)
        raise UmieError(f"{place}: is {shown(data)}: expected an object with {', '.join(fields)}")
    for name, (kind, size) in _ARRAYS.items():
        try:
            numbers = len(_unpacked(data[name], kind))
        except (ValueError, TypeError) as error:
            raise UmieError(f"{place}: {name} is {shown(data[name])}: expected numbers in base64") from error
        if numbers > size or (numbers < size and name != "smallest"):
            raise UmieError(f"{place}: {name} has {numbers} numbers: expected {size}")
    return Fingerprint(**data)


def _differing(left: str, right: str) -> int:
    return int(np.count_nonzero(_unpacked(left, "<u4") != _unpacked(right, "<u4")))


def _items(differing: int) -> int:
    """Return the maximum likelihood estimate of the number of items that fell into this many buckets."""
    return round(math.log1p(-differing / BUCKETS) / math.log1p(-1 / BUCKETS))


def _changed(
    known: Mapping[str, Mapping[str, int]], found: Mapping[str, Mapping[str, int]]
) -> dict[str, dict[str, tuple[int, int]]]:
    result = {}
    for task in sorted({*known, *found}):
        before, after = known.get(task, {}), found.get(task, {})
        uses = {label: (before.get(label, 0), after.get(label, 0)) for label in sorted({*before, *after})}
        changes = {label: (old, new) for label, (old, new) in uses.items() if old != new}
        if changes:
            result[task] = changes
    return result
