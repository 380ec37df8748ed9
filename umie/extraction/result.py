"""Extraction: what was found in one text and its image, and what to know about how it was found."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, TypeAlias

from umie.records import NO_RELATION, Argument, Box, Entity, Event, Record, Region, Relation, record_to_json

PixelBox: TypeAlias = tuple[int, int, int, int]

NOTICES = {
    "truncated": "the text was longer than the model reads",
    "image": "the image was not looked at",
    "regions": "regions were not looked at",
    "labels": "labels that the checkpoint was not trained for",
    "pairs": "pairs of entities were not asked about",
    "dropped": "parts of an answer were ill-formed or not in the text",
}


class Notice(NamedTuple):
    """A warning: its kind, one of ``NOTICES``, and what it says about this record."""

    kind: str
    message: str


@dataclass(frozen=True)
class Answer:
    """The answer to one query.

    Args:
        task: the task.
        target: the pair or the event that was asked about.
        output: what was generated.
        gate: how far the fusion let the image in; None without an image, or where the fusion has no gate. A gate
            that is finer than one number per example is averaged.
        is_truncated: whether the end of the text was cut off.
        dropped: how many parts of the output were ill-formed, or not in text or image.
    """

    task: str
    target: Any
    output: str
    gate: float | None = None
    is_truncated: bool = False
    dropped: int = 0


@dataclass(frozen=True)
class Extraction:
    """What was found in one text and its image. Two are equal where they say the same about the same record.

    Args:
        record: what was found as a record: text, image, regions, the tasks that were asked, entities, relations
            (``none`` where a pair was asked about and is not related), events.
        warnings: what to know about it.
        image_size: width and height of the image in pixels, as it is displayed; only where an argument is a
            region, and the image can be read.
        answers: every query's answer, in the order of asking; not compared, as gates are rounded.
    """

    record: Record
    warnings: tuple[Notice, ...] = ()
    image_size: tuple[int, int] | None = None
    answers: tuple[Answer, ...] = field(default=(), compare=False)

    @property
    def text(self) -> str:
        """The text; every span is a pair of character offsets into it."""
        return self.record.text

    @property
    def entities(self) -> tuple[Entity, ...]:
        """Typed spans (MNER)."""
        return self.record.entities

    @property
    def relations(self) -> tuple[Relation, ...]:
        """The pairs that are related (MRE); ``record.relations`` has those of type ``none``, too."""
        return tuple(item for item in self.record.relations if item.type.lower() != NO_RELATION)

    @property
    def events(self) -> tuple[Event, ...]:
        """Events (MED) with their arguments (MEAE)."""
        return self.record.events

    @property
    def gate(self) -> dict[str, float | None]:
        """The mean gate over each task's queries; None where there is none."""
        gates: dict[str, list[float]] = {}
        for answer in self.answers:
            gates.setdefault(answer.task, []).extend([] if answer.gate is None else [answer.gate])
        return {task: sum(values) / len(values) if values else None for task, values in gates.items()}

    def region(self, argument: Argument) -> Region | None:
        """Return the region that fills a role, its box relative to the image (0..1), or None for a span."""
        return None if argument.region is None else self.record.regions[argument.region]

    def pixel_box(self, argument: Argument) -> PixelBox | None:
        """Return the box that fills a role in pixels, or None for a span and where the image's size is not known."""
        region = self.region(argument)
        if region is None or self.image_size is None:
            return None
        return _pixels(region.box, self.image_size)

    def to_json(self) -> dict[str, Any]:
        """Return everything as plain values: the JSONL form of the record, with boxes, gates and warnings added."""
        record = self.record
        if not isinstance(record.image, str | None):  # in memory: there is no name to write, and no record without one
            record = replace(record, image="in memory")
        data: dict[str, Any] = json.loads(record_to_json(record))
        for event, found in zip(data.get("events", ()), self.events, strict=True):
            for argument, item in zip(event["arguments"], found.arguments, strict=True):
                region = self.region(item)
                if region is not None:
                    pixels = self.pixel_box(item)
                    argument |= {"box": list(region.box), "pixels": None if pixels is None else list(pixels)}
        return {**data, "gate": self.gate, "warnings": [notice._asdict() for notice in self.warnings]}


def _pixels(box: Box, size: tuple[int, int]) -> PixelBox:
    """Return a relative box in whole pixels, at least one wide and high."""
    x1, y1, x2, y2 = (round(edge * side) for edge, side in zip(box, (*size, *size), strict=True))
    x1, y1 = min(x1, size[0] - 1), min(y1, size[1] - 1)
    return x1, y1, max(x2, x1 + 1), max(y2, y1 + 1)
