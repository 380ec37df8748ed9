"""Labels that look the same, and labels that an output style of ``umie.tasks`` cannot tell apart."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator

from umie.errors import shown
from umie.records.model import Record

_MARKERS = ("<spot>", "<extra_id_")  # of the other output styles
_MAX_COMMAS = 20
_MAX_LABELS = 20_000  # kept per kind; more are not labels


class LabelForms:
    """Collects the labels of records, and finds those that look the same."""

    def __init__(self) -> None:
        self._labels: dict[str, dict[str, None]] = {}

    def add(self, record: Record) -> None:
        """Collect the labels of a record, those of its schema among them."""
        self._add("mner", (item.type for item in record.entities))
        self._add("mre", (item.type for item in record.relations))
        self._add("med", (event.type for event in record.events))
        self._add("meae", (item.role for event in record.events for item in event.arguments))
        for task, labels in (record.labels or {}).items():
            self._add(task, iter(labels))

    def _add(self, task: str, labels: Iterator[str]) -> None:
        known = self._labels.setdefault(task, {})
        for label in labels:
            if label not in known and len(known) < _MAX_LABELS:
                known[label] = None

    def collisions(self) -> Iterator[str]:
        """Yield a message for labels of a task that look the same, or that an output style cannot tell apart."""
        for task, labels in self._labels.items():
            groups: dict[str, list[str]] = {}
            for label in labels:
                groups.setdefault(_form(label), []).append(label)
            for group in groups.values():
                if len(group) > 1:
                    names = ", ".join(map(shown, group[:5]))
                    yield f"{task} labels {names} differ only in case, spaces or the form of characters: use one"
            for label in labels:
                shorter = next((one for one in _beginnings(label) if one in labels), None)
                if shorter is not None:
                    yield f"{task} labels {shown(shorter)}, {shown(label)}: only the style structured tells them apart"
                if any(marker in label for marker in _MARKERS):
                    yield f"{task} label {shown(label)} has a marker: only the style structured can write it"


def _beginnings(label: str) -> Iterator[str]:
    """Yield what is before each comma of a label, as many as a label may reasonably have."""
    parts = label.split(",")[:_MAX_COMMAS]
    return (",".join(parts[:number]).strip() for number in range(1, len(parts)))


def _form(label: str) -> str:
    return " ".join(unicodedata.normalize("NFKC", label).casefold().replace("_", " ").split())
