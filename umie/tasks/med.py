"""MED: multimodal event detection, with one query per record."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from umie.records import Event, Record
from umie.tasks import grammar, registry
from umie.tasks.base import FieldTask, Query, places_of, span_of, written


@registry.register("med")
class MED(FieldTask[Event]):
    """Event types with trigger spans, if ``grounded`` with places; an event that only media show has no trigger.

    Source: UMIE, Table 2. The paper prints variants only for MNER; I0 to I2 are analogous paraphrases.
    """

    name = "med"
    default_labels = (
        "arrest jail", "meet", "attack", "transport", "demonstrate", "phone write", "die", "transfer",
    )  # fmt: skip
    kind = "events"
    rank = 2
    label_noun = "event"
    templates: ClassVar[Mapping[str, str]] = {
        "paper": "Please extract the following event type: {labels}.",
        "I0": "Given the event types: {labels}. Please extract the specified event type.",
        "I1": "Identify the following event type from the given sentence: {labels}.",
        "I2": "Please extract event type in the sentence. Option: {labels}.",
    }

    def queries(self, record: Record) -> list[Query]:
        """Return one query; its answer lists the events by the position of their triggers."""
        events = record.events
        if not self.config.grounded:
            events = tuple(Event(event.type, event.trigger) for event in events)
        events = tuple(sorted(events, key=lambda event: (event.trigger or (-1, -1), event.places)))
        return [self._query(written(event.type, record, event.trigger, event.places, self.style) for event in events)]

    def answer_schema(self, record: Record, target: Any = None) -> grammar.AnswerSchema:
        """Return a schema of typed spans, and of types without a span."""
        places = self.place_names(record) if self.config.grounded else ()
        placed = self.labels if places else ()
        return grammar.AnswerSchema(
            labels=self.labels, spans=True, bare=True, places=places, placed_labels=placed, grounded=bool(places)
        )

    def _read(self, raw: grammar.ParsedItem, record: Record, target: Any) -> Event | None:
        span, places = span_of(raw, record), places_of(raw, record)
        if places is None or (places and not self.config.grounded) or (span is None and raw.filler is not None):
            return None
        return Event(raw.label, span, (), *places)
