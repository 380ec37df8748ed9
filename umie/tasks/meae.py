"""MEAE: multimodal event argument extraction, with one query per event."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any, ClassVar

from umie.records import Argument, Event, Record, Span
from umie.tasks import grammar, registry
from umie.tasks.base import Query, Task, region_names, regions_of, span_item


@registry.register("meae")
class MEAE(Task[Event]):
    """Arguments of the event in the query: spans of the text, or regions of the image (``O1``).

    An item is an Event with exactly one argument. Source: UMIE, Table 2. Deviation: the paper lists the roles of the
    event type; this task lists all roles of the schema, so that the prompt reveals nothing. The paper prints variants
    only for MNER; I0 to I2 are analogous paraphrases.
    """

    name = "meae"
    default_labels = (
        "Agent", "Person", "Place", "Instrument", "Attacker", "Target", "Victim", "Entity", "Police", "Artifact",
        "Vehicle", "Destination", "Origin", "Giver", "Recipient", "Money",
    )  # fmt: skip
    kind = "arguments"
    source = "med"
    is_staged = True
    rank = 3
    label_noun = "role"
    templates: ClassVar[Mapping[str, str]] = {
        "paper": "Given an {type} event, please extract the corresponding argument type: {labels}.",
        "I0": "Given an {type} event and the argument types: {labels}. Please extract the specified argument type.",
        "I1": "Identify the argument type of the {type} event from the given sentence: {labels}.",
        "I2": "Please extract argument type of the {type} event in the sentence. Option: {labels}.",
    }

    @property
    def names_regions(self) -> bool:
        """Whether answers refer to regions of the image."""
        return True

    def queries(self, record: Record) -> list[Query]:
        """Return one query per event; its answer lists spans by position, then regions by index."""
        queries = []
        for event in _merge(record.events):
            spans = sorted((argument.span, argument.role) for argument in event.arguments if argument.span is not None)
            regions = sorted(
                (argument.region, argument.role) for argument in event.arguments if argument.region is not None
            )
            raw = [span_item(role, record.text, span) for span, role in spans]
            raw += [grammar.ParsedItem(role, places=(grammar.region_name(index),)) for index, role in regions]
            queries.append(self._query(raw, replace(event, arguments=()), type=event.type))
        return queries

    def answer_schema(self, record: Record, target: Any = None) -> grammar.AnswerSchema:
        """Return a schema of roles filled by spans or regions."""
        return grammar.AnswerSchema(labels=self.labels, spans=True, places=region_names(record), placed=True)

    def target_spans(self, target: Any) -> tuple[Span, ...]:
        """Return the trigger, unless only the image shows the event."""
        return () if target is None or target.trigger is None else (target.trigger,)

    def items(self, record: Record) -> list[Event]:
        """Return one Event per annotated argument."""
        return [replace(event, arguments=(argument,)) for event in record.events for argument in event.arguments]

    def with_items(self, record: Record, items: Iterable[Event]) -> Record:
        """Return the record with its events, whose arguments are replaced by those of the items."""
        asked = [replace(event, arguments=()) for event in record.events]
        return replace(record, events=_merge([*asked, *items]))

    def label_of(self, item: Event) -> str:
        """Return the role of the argument of an item."""
        return item.arguments[0].role

    def needs_source(self, given: Record, asked: Collection[str]) -> bool:
        """Return False only if events are given and MED is not asked, so that no annotation gets into an answer."""
        return self.source in asked or not given.events

    def with_subjects(
        self, found: Record, given: Record, *, from_source: bool, max_subjects: int | None = None
    ) -> tuple[Record, int]:
        """Return the record with the events to ask about, without arguments, and their number."""
        events = (found if from_source else given).events
        return replace(found, events=tuple(Event(event.type, event.trigger) for event in events)), len(events)

    def used_labels(self, record: Record) -> Iterator[str]:
        """Yield the roles."""
        return (argument.role for event in record.events for argument in event.arguments)

    def _read(self, raw: grammar.ParsedItem, record: Record, target: Any) -> Event | None:
        if target is None or (raw.filler is None) == (not raw.places):  # a span, or a region, not both
            return None
        span = region = None
        if raw.filler is None:
            regions = regions_of(raw.places, record)
            region = regions[0] if regions is not None and len(regions) == 1 else None
        else:
            span = grammar.locate(record.text, raw.filler, raw.occurrence)
        if span is None and region is None:
            return None
        return Event(target.type, target.trigger, (Argument(raw.label, span, region),))


def _merge(events: Iterable[Event]) -> tuple[Event, ...]:
    """Merge events with the same type and trigger, which a query cannot distinguish."""
    merged: dict[tuple[Any, ...], dict[Argument, None]] = {}
    for event in events:
        arguments = merged.setdefault((event.type, event.trigger), {})
        arguments.update(dict.fromkeys(event.arguments))
    return tuple(Event(name, trigger, tuple(arguments)) for (name, trigger), arguments in merged.items())
