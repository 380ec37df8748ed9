"""Draft: an extraction in the making, from what was given to what was found."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from umie.extraction import stages
from umie.extraction.images import Looked, image_size
from umie.extraction.result import Answer, Extraction, Notice
from umie.records import Record
from umie.tasks import Task, registry, task_class


@dataclass
class Draft:
    """What was given, what the model sees of the image, and what was found so far."""

    given: Record
    looked: Looked
    names: tuple[str, ...]
    found: Record = field(init=False)
    notices: list[Notice] = field(default_factory=list)
    answers: list[Answer] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.found = stages.blank(self.given, self.names)

    def prepare(self, task: Task[Any], names: tuple[str, ...], max_pairs: int) -> None:
        """Put what a task asks about into the record."""
        self.found, number = task.with_subjects(
            self.found,
            self.given,
            from_source=task.needs_source(self.given, names),
            max_subjects=max_pairs,
        )
        if number > max_pairs and not self.given.relations:
            told = f"{task.name}: {number} pairs of entities; the {max_pairs} nearest were asked about"
            self.notices.append(Notice("pairs", told))

    def extraction(self, names: tuple[str, ...], notices: Sequence[Notice]) -> Extraction:
        """Return the finished extraction."""
        record = self.found
        asked = [task_class(name) for name in names]
        for source in {answer.task for answer in self.answers} - set(names):  # asked on behalf of another task
            if not any(task.source == source and task.is_staged for task in asked):
                record = registry.build(source).with_items(record, ())
        told = [*notices, *self.looked.notices, *self.notices]
        for task in dict.fromkeys(answer.task for answer in self.answers):
            own = [answer for answer in self.answers if answer.task == task]
            if any(answer.is_truncated for answer in own):
                told.append(Notice("truncated", f"{task}: the input was too long, so the end of the text was cut off"))
            dropped = sum(answer.dropped for answer in own)
            if dropped:
                told.append(Notice("dropped", f"{task}: {dropped} parts of the answer were ill-formed or not there"))
        has_region = any(argument.region is not None for event in record.events for argument in event.arguments)
        size = image_size(record) if has_region else None
        return Extraction(record, tuple(told), size, tuple(self.answers))
