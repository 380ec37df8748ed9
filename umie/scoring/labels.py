"""Predicted labels that gold does not know: mostly another spelling of the schema, not another opinion."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from umie.records import Record
from umie.tasks import registry


def unknown_labels(task: str, predictions: Sequence[Record], gold: Sequence[Record]) -> Counter[str]:
    """Return how often each predicted label occurs that is neither in gold's schema nor used by gold.

    Args:
        task: the task.
        predictions: the records with what was predicted.
        gold: the records as annotated.
    """
    built = registry.build(task)
    known: set[str] = set()
    for record in gold:
        known.update((record.labels or {}).get(task, ()), built.used_labels(record))
    used = Counter(label for record in predictions for label in built.used_labels(record))
    return Counter({label: count for label, count in used.items() if label not in known})
