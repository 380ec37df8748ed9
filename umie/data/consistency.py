"""What makes the records of any reader a valid file: unique ids, and schemas with the labels in use."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace

from umie.errors import shown
from umie.records import NO_RELATION, Record
from umie.records.notes import take_note


class RecordIds:
    """Ids that are unique in a file: those that occur again get a number (``5``, ``5:2``), which is noted."""

    def __init__(self) -> None:
        self._numbers: Counter[str] = Counter()

    def unique(self, name: str) -> str:
        """Return the id of the next record named ``name``."""
        self._numbers[name] += 1
        found = name
        while self._numbers[name] > 1 and (found := f"{name}:{self._numbers[name]}") in self._numbers:
            self._numbers[name] += 1
        if found != name:
            self._numbers[found] += 1
            take_note("ids that occur again, read with a number")
        return found


def consistent(records: Iterable[Record]) -> Iterator[Record]:
    """Yield records with unique ids, and with their labels in their schemas; what is changed is noted."""
    ids = RecordIds()
    for record in records:
        if record.id and (name := ids.unique(record.id)) != record.id:
            record = replace(record, id=name)
        yield _with_schema(record)


def _with_schema(record: Record) -> Record:
    if not record.labels:
        return record
    used = {
        "mner": [item.type for item in record.entities],
        "mre": [item.type for item in record.relations if item.type != NO_RELATION],
        "med": [event.type for event in record.events],
        "meae": [item.role for event in record.events for item in event.arguments],
    }
    schema = dict(record.labels)
    for task, labels in used.items():
        for label in dict.fromkeys(labels if task in schema else ()):
            if label not in schema[task]:
                take_note(f"{task} label {shown(label)}, which is added to the schema")
                schema[task] = (*schema[task], label)
    return record if schema == record.labels else replace(record, labels=schema)
