"""MEAE: multimodal event argument extraction, with one query per event."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any, ClassVar

from umie.records import Argument, Event, Places, Record, Span
from umie.tasks import grammar, registry
from umie.tasks.base import Query, Task, places_of, span_of, written


@registry.register("meae")
class MEAE(Task[Event]):
    """Arguments of the event in the query: spans of the text, or regions of the image (``O1``).

    If ``grounded``, an argument may have a span, places in all media (``O1``, ``V1``, ``S1``), or both.

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
    def names_places(self) -> bool:
        """Whether answers refer to places; without ``grounded`` only to regions of the image."""
        return True

    def queries(self, record: Record) -> list[Query]:
        """Return one query per event; its answer lists spans by position, then those without a span by place."""
        queries = []
        for event in _merge(record.events):
            arguments = [
                argument if self.config.grounded else _plain(argument)
                for argument in event.arguments
                if self.config.grounded or argument.span is not None or argument.regions
            ]
            arguments.sort(key=lambda item: (item.span is None, item.span or (), item.places, item.role))
            raw = [written(item.role, record, item.span, item.places, self.style) for item in arguments]
            queries.append(self._query(raw, replace(event, arguments=()), type=event.type))
        return queries

    def answer_schema(self, record: Record, target: Any = None) -> grammar.AnswerSchema:
        """Return a schema of roles filled by spans or places."""
        grounded = self.config.grounded
        places = self.place_names(record) if grounded else Places(tuple(range(len(record.regions)))).names
        return grammar.AnswerSchema(
            labels=self.labels,
            spans=True,
            places=places,
            placed_labels=self.labels if places else (),
            grounded=grounded and bool(places),
        )

    def target_spans(self, target: Any) -> tuple[Span, ...]:
        """Return the trigger, unless only the image shows the event."""
        return () if target is None or target.trigger is None else (target.trigger,)

    def items(self, record: Record) -> list[Event]:
        """Return one Event per annotated argument."""
        return [replace(event, arguments=(argument,)) for event in record.events for argument in event.arguments]

    def with_items(self, record: Record, items: Iterable[Event]) -> Record:
        """Return the record with its events, whose arguments are replaced by those of the items."""
        asked = [replace(event, arguments=()) for event in record.events]
        return replace(record, events=_merge([*asked, *items]), gold=None)

    def probability_of(self, item: Event) -> float | None:
        """Return the probability of the argument of an item."""
        return item.arguments[0].probability

    def with_probability(self, item: Event, probability: float) -> Event:
        """Return an item whose argument says its probability."""
        return replace(item, arguments=(replace(item.arguments[0], probability=probability),))

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
        events = found.events if from_source else [replace(event, probability=None) for event in given.events]
        return replace(found, events=tuple(replace(event, arguments=()) for event in events)), len(events)

    def used_labels(self, record: Record) -> Iterator[str]:
        """Yield the roles."""
        return (argument.role for event in record.events for argument in event.arguments)

    def _read(self, raw: grammar.ParsedItem, record: Record, target: Any) -> Event | None:
        span, places = span_of(raw, record), places_of(raw, record)
        if target is None or places is None or (span is None and (raw.filler is not None or not places)):
            return None
        argument = Argument(raw.label, span, *places)
        if not self.config.grounded and argument != _plain(argument):
            return None
        return Event(target.type, target.trigger, (argument,), *target.places)


def _plain(argument: Argument) -> Argument:
    """Return an argument as UMIE has it: a span, or else one region."""
    return Argument(argument.role, argument.span, () if argument.span else argument.regions[:1])


def _merge(events: Iterable[Event]) -> tuple[Event, ...]:
    """Merge events with the same type and trigger, which a query cannot distinguish."""
    merged: dict[tuple[Any, ...], tuple[Event, dict[Argument, None]]] = {}
    for event in events:
        _, arguments = merged.setdefault((event.type, event.trigger), (event, {}))
        arguments.update(dict.fromkeys(event.arguments))
    return tuple(replace(event, arguments=tuple(arguments)) for event, arguments in merged.values())
