"""Fingerprints of files: they identify copies and edited versions of a data set without containing its texts.

A fingerprint consists of sums of hashes. It does not depend on the order of the records, whitespace, images, boxes, ids
or the file format, so a converted or re-tokenized copy is still recognized.
"""

from __future__ import annotations

import base64
import heapq
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

import numpy as np
from numpy.typing import NDArray

from umie.audit.checks import all_tasks
from umie.records import Argument, Record, Span

BUCKETS = 256
SMALLEST = 128
_MASK = 2**64 - 1


@dataclass(frozen=True)
class Fingerprint:
    """The fingerprint of one version of a file.

    Args:
        name: the name of the version, e.g. ``Twitter-17 train``.
        records: the number of records.
        distinct: the number of distinct texts.
        texts: the sum of the 128-bit hashes of all texts, in hexadecimal.
        annotated: the same sum for texts with their annotation.
        text_buckets: for each of 256 buckets, to which records are assigned by the hash of their text, the sum of the
            hashes modulo 2^32 (base64): the number of different buckets estimates the number of different texts.
        annotation_buckets: the same sums for texts with their annotation.
        smallest: the 128 smallest 64-bit hashes of the texts (base64, ascending), which estimate the share of texts in
            common with another file.
        labels: the number of uses of each label, by task.
    """

    name: str
    records: int
    distinct: int
    texts: str
    annotated: str
    text_buckets: str
    annotation_buckets: str
    smallest: str
    labels: Mapping[str, Mapping[str, int]]


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


def _annotation(record: Record) -> list[Any]:
    """Return the annotation of the text in a canonical order, with spans counted in non-whitespace characters."""
    places = [0]
    for character in record.text:
        places.append(places[-1] + (not character.isspace()))

    def span(given: Span | None) -> list[int] | None:
        return None if given is None else [places[given[0]], places[given[1]]]

    return [
        sorted([entity.type, span(entity.span)] for entity in record.entities),
        sorted([relation.type, span(relation.head), span(relation.tail)] for relation in record.relations),
        sorted(
            json.dumps([event.type, span(event.trigger), sorted(_arguments(event.arguments, span))], ensure_ascii=False)
            for event in record.events
        ),
    ]


def _arguments(arguments: Iterable[Argument], span: Any) -> Iterator[list[Any]]:
    for argument in arguments:
        if argument.span is not None:  # arguments in the image depend on whether its file exists
            yield [argument.role, span(argument.span)]


def _hash(text: str) -> int:
    return int.from_bytes(blake2b(text.encode(), digest_size=16).digest(), "big")


def _packed(values: NDArray[Any]) -> str:
    return base64.b64encode(values.tobytes()).decode()


def unpacked(text: str, kind: str) -> NDArray[Any]:
    """Return the numbers of a field of a fingerprint; ``kind`` is ``<u4`` for buckets and ``<u8`` for hashes."""
    return np.frombuffer(base64.b64decode(text, validate=True), dtype=kind)
