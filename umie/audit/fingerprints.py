"""Fingerprints of files: what tells copies of a data set apart without holding a word of it.

A fingerprint does not depend on the order of the records, on white space inside a text, on images, boxes, ids or
the file's format, so a converted or re-tokenized copy is still recognized. It holds sums of hashes and no text.
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
    """What is kept of a version of a file.

    Args:
        name: what the version is called, e.g. ``Twitter-17 train``.
        records: the number of its records.
        distinct: the number of its distinct texts.
        texts: sum of the 128-bit hashes of all texts, in hexadecimal digits.
        annotated: the same of all texts with their annotation.
        text_buckets: for each of 256 buckets, into which the hash of its text puts a record, the sum of the
            hashes of the texts modulo 2^32 (base64): how many of them differ tells how many texts do.
        annotation_buckets: the same of texts with annotation.
        smallest: the 128 smallest 64-bit hashes of the texts (base64, ascending), from which the share of texts in
            common with another file can be estimated however many differ.
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
    """Return the fingerprint of some records; they are read once, one by one."""
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
        with np.errstate(over="ignore"):  # the sums are meant to wrap around
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
    """Return the textual annotation with spans counted in characters that are no white space, in a fixed order."""
    places = [0]
    for sign in record.text:
        places.append(places[-1] + (not sign.isspace()))

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
        if argument.span is not None:  # those in the image depend on whether it was at hand
            yield [argument.role, span(argument.span)]


def _hash(text: str) -> int:
    return int.from_bytes(blake2b(text.encode(), digest_size=16).digest(), "big")


def _packed(values: NDArray[Any]) -> str:
    return base64.b64encode(values.tobytes()).decode()


def unpacked(text: str, kind: str) -> NDArray[Any]:
    """Return the numbers of a field of a fingerprint; ``kind`` is ``<u4`` for buckets, ``<u8`` for hashes."""
    return np.frombuffer(base64.b64decode(text, validate=True), dtype=kind)
