"""The measures of each kind of task."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from umie.records import Record
from umie.scoring import events, groundings, mentions
from umie.scoring.counts import Tally, tally_sets
from umie.tasks import registry


@dataclass(frozen=True)
class Measure:
    """A way to count correct items."""

    kind: str  # of the task; see ``umie.tasks.Task``
    name: str  # in tables
    count: Callable[[Record, Record], Tally]  # counts predicted and gold items of one record, by label
    definition: str  # one sentence for tables and files
    strings: bool = False  # whether it compares strings, and so can score predictions without offsets
    modality: str | None = None  # the only modality of M2E2 that it is defined for
    visual: bool = False  # whether it leaves out records whose only media are sounds or videos
    only_if: Callable[[Record], bool] | None = None  # it is used if this holds of a record of gold; see ``scorer``

    def covers(self, record: Record) -> bool:
        """Return whether the measure is defined for a record."""
        return not self.visual or "image" in record.media or not record.media


def _measure(kind: str, name: str, count: Callable[[Record, Record], Tally], **options: Any) -> Measure:
    return Measure(kind, name, count, " ".join((count.__doc__ or "").partition("\n\n")[0].split()), **options)


def _strings(kind: str) -> Measure:
    def count(predicted: Record, gold: Record) -> Tally:
        return mentions.tally_strings(mentions.strings_of(kind, predicted), gold, kind)

    definition = "Label and strings are equal, offsets are ignored; a string that occurs twice in gold counts twice."
    return Measure(kind, "string", count, definition, strings=True)


MEASURES = (
    _measure("entities", "strict", mentions.entities_strict),
    _measure("entities", "boundary", mentions.entities_boundary),
    _measure("entities", "type", mentions.entities_type),
    _measure("entities", "grounded", groundings.entities_grounded, only_if=groundings.has_places("entities")),
    _measure("entities", "GMNER", groundings.entities_gmner, visual=True, only_if=groundings.has_regions),
    _measure("entities", "EEG", groundings.entities_eeg, visual=True, only_if=groundings.has_regions),
    _measure("entities", "pointing", groundings.entities_pointing, only_if=groundings.has_places("entities")),
    _strings("entities"),
    _measure("relations", "strict", mentions.relations_strict),
    _measure("relations", "with none", mentions.relations_with_none),
    _measure("relations", "grounded", groundings.relations_grounded, only_if=groundings.has_places("relations")),
    _strings("relations"),
    _measure("events", "strict", events.events_strict),
    _measure("events", "type", events.events_type),
    _measure("events", "trigger", events.events_trigger),
    _measure("events", "textual", events.events_textual),
    _measure("events", "visual", events.events_visual, visual=True),
    _measure("events", "text or image", events.events_multimedia, modality="multimedia"),
    _measure("events", "grounded", groundings.events_grounded, only_if=groundings.has_places("events")),
    _strings("events"),
    _measure("arguments", "strict", events.arguments_strict),
    _measure("arguments", "textual", events.arguments_textual),
    _measure("arguments", "visual instance", events.arguments_instance, visual=True),
    _measure("arguments", "visual union", events.arguments_union, visual=True),
    _measure("arguments", "by type", events.arguments_by_type),
    _measure("arguments", "textual by type", events.arguments_textual_by_type),
    _measure("arguments", "visual instance by type", events.arguments_instance_by_type, visual=True),
    _measure("arguments", "visual union by type", events.arguments_union_by_type, visual=True),
    _measure("arguments", "grounded", groundings.arguments_grounded, only_if=groundings.has_grounded_arguments),
    _strings("arguments"),
)
"""All measures; the first of each kind is its main measure."""


def measures_of(task: str) -> list[Measure]:
    """Return the measures of a registered task, the main one first.

    A task of its own kind has one measure: an item is correct if it equals an annotated one.
    """
    built = registry.build(task)

    def count(predicted: Record, gold: Record) -> Tally:
        return tally_sets(*(((built.label_of(item), item) for item in built.items(side)) for side in (predicted, gold)))

    equal_items = Measure(built.kind, "strict", count, "Items are equal; a repeated prediction counts once.")
    return [measure for measure in MEASURES if measure.kind == built.kind] or [equal_items]
