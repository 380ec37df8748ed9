"""Labels of a task over many records."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

from umie.records import Record
from umie.tasks.base import Task


def used_labels(task: Task[Any], records: Iterable[Record]) -> Counter[str]:
    """Return the number of uses of each label in the annotation of records, in order of first use."""
    return Counter(label for record in records for label in task.used_labels(record))


def declared_labels(name: str, records: Iterable[Record]) -> list[str]:
    """Return the distinct labels that the schemas of records declare for a task, in order of first occurrence."""
    return list(dict.fromkeys(label for record in records for label in (record.labels or {}).get(name, ())))
