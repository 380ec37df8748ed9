"""The measures: which there are for each kind of task, what each counts, and which modality of M2E2 it is for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from umie.records import Record
from umie.scoring import events, mentions
from umie.scoring.counts import Tally, tally_sets
from umie.tasks import Task, registry, task_class

EVENT_KINDS = ("events", "arguments")
MODALITIES = ("text-only", "image-only", "multimedia")


@dataclass(frozen=True)
class Measure:
    """One way to count what is right.

    Args:
        kind: the kind of task it is about; see ``umie.tasks.Task``.
        name: how tables call it.
        count: counts one record, label by label.
        definition: one sentence, for tables and files.
        strings: it compares strings, so it can score a system that gives no offsets.
        modality: the only modality of M2E2 it is defined on.
    """

    kind: str
    name: str
    count: Callable[[Record, Record], Tally]
    definition: str
    strings: bool = False
    modality: str | None = None


def _measure(kind: str, name: str, count: Callable[[Record, Record], Tally], modality: str | None = None) -> Measure:
    return Measure(kind, name, count, " ".join((count.__doc__ or "").partition("\n\n")[0].split()), modality=modality)


def _strings(kind: str) -> Measure:
    def count(predicted: Record, gold: Record) -> Tally:
        return mentions.tally_strings(mentions.strings_of(kind, predicted), gold, kind)

    definition = "Label and strings are equal, offsets are not looked at; a string that gold holds twice counts twice."
    return Measure(kind, "string", count, definition, strings=True)


MEASURES = (
    _measure("entities", "strict", mentions.entities_strict),
    _measure("entities", "boundary", mentions.entities_boundary),
    _measure("entities", "type", mentions.entities_type),
    _strings("entities"),
    _measure("relations", "strict", mentions.relations_strict),
    _measure("relations", "with none", mentions.relations_with_none),
    _strings("relations"),
    _measure("events", "strict", events.events_strict),
    _measure("events", "type", events.events_type),
    _measure("events", "trigger", events.events_trigger),
    _measure("events", "textual", events.events_textual),
    _measure("events", "visual", events.events_visual),
    _measure("events", "text or image", events.events_multimedia, modality="multimedia"),
    _strings("events"),
    _measure("arguments", "strict", events.arguments_strict),
    _measure("arguments", "textual", events.arguments_textual),
    _measure("arguments", "visual instance", events.arguments_instance),
    _measure("arguments", "visual union", events.arguments_union),
    _measure("arguments", "by type", events.arguments_by_type),
    _measure("arguments", "textual by type", events.arguments_textual_by_type),
    _measure("arguments", "visual instance by type", events.arguments_instance_by_type),
    _measure("arguments", "visual union by type", events.arguments_union_by_type),
    _strings("arguments"),
)
"""All measures; the first of a kind is its headline."""


def measures_of(task: str) -> list[Measure]:
    """Return the measures of a registered task, the headline first.

    A task of a kind of its own has one: an item is right if it equals an annotated one.
    """
    part = task_class(task)
    return [measure for measure in MEASURES if measure.kind == part.kind] or [_equal_items(registry.build(task))]


def _equal_items(task: Task[Any]) -> Measure:
    def count(predicted: Record, gold: Record) -> Tally:
        return tally_sets(*(((task.label_of(item), item) for item in task.items(side)) for side in (predicted, gold)))

    return Measure(task.kind, "strict", count, "Items are equal; a repeated prediction counts once.")


def modality_of(record: Record) -> str:
    """Return which modality of M2E2 a record belongs to: by whether it has a text, an image, or both.

    Source: M2E2 is scored on sentences alone, on images alone, and on pairs of both that show one event. What
    a record has does not depend on any system, so every prediction about it counts in its modality.
    """
    if record.image is None:
        return "text-only"
    return "multimedia" if record.text.strip() else "image-only"
