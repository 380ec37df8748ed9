"""Predicted labels that do not occur in gold: mostly another spelling of a label in the schema."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from umie.records import Record
from umie.tasks import registry


def unknown_labels(task: str, predictions: Sequence[Record], gold: Sequence[Record]) -> Counter[str]:
    """Return the number of uses of each predicted label that is neither in gold's schema nor used by gold.

    Args:
        task: the task.
        predictions: the records with predicted items.
        gold: the annotated records.
    """
    built = registry.build(task)
    known: set[str] = set()
    for record in gold:
        known.update((record.labels or {}).get(task, ()), built.used_labels(record))
    used = Counter(label for record in predictions for label in built.used_labels(record))
    return Counter({label: count for label, count in used.items() if label not in known})
