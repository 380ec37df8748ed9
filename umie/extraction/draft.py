"""Draft: an extraction in the making, from what was given to what was found."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from umie.extraction import stages
from umie.extraction.looking import Looked, picture_size
from umie.extraction.result import Answer, Extraction, Notice
from umie.records import Record


@dataclass
class Draft:
    """What was given, what the model sees of the picture, and what was found so far."""

    given: Record
    looked: Looked
    names: tuple[str, ...]
    found: Record = field(init=False)
    notices: list[Notice] = field(default_factory=list)
    answers: list[Answer] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.found = stages.blank(self.given, self.names)

    def prepare(self, task: str, names: tuple[str, ...], max_pairs: int) -> None:
        """Put what a task asks about into the record."""
        if task in stages.SOURCES:
            is_found = stages.needs_source(task, names, self.given)
            if task == "mre":
                self.found, notices = stages.with_pairs(self.found, self.given, is_found, max_pairs)
                self.notices += notices
            else:
                self.found = stages.with_events(self.found, self.given, is_found)

    def extraction(self, names: tuple[str, ...], notices: Sequence[Notice]) -> Extraction:
        """Return the finished extraction."""
        record = self.found if "mner" in names else replace(self.found, entities=())
        told = [*notices, *self.looked.notices, *self.notices]
        for task in dict.fromkeys(answer.task for answer in self.answers):
            own = [answer for answer in self.answers if answer.task == task]
            if any(answer.is_truncated for answer in own):
                told.append(Notice("truncated", f"{task}: the input was too long, so the end of the text was cut off"))
            dropped = sum(answer.dropped for answer in own)
            if dropped:
                told.append(Notice("dropped", f"{task}: {dropped} parts of the answer were ill-formed or not there"))
        has_region = any(argument.region is not None for event in record.events for argument in event.arguments)
        size = picture_size(record) if has_region else None
        return Extraction(record, tuple(told), size, tuple(self.answers))
