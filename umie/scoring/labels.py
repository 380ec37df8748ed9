"""Predicted labels that do not occur in gold: mostly another spelling of a label in the schema."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from umie.records import Record
from umie.tasks import registry
from umie.tasks.labels import declared_labels, used_labels


def unknown_labels(task: str, predictions: Sequence[Record], gold: Sequence[Record]) -> Counter[str]:
    """Return the number of uses of each predicted label that is neither in gold's schema nor used by gold.

    Args:
        task: the task.
        predictions: the records with predicted items.
        gold: the annotated records.
    """
    built = registry.build(task)
    known = {*declared_labels(task, gold), *used_labels(built, gold)}
    return Counter({label: count for label, count in used_labels(built, predictions).items() if label not in known})
