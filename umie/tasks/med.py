"""MED: multimodal event detection, with one query per record."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from umie.records import Event, Record
from umie.tasks import grammar, registry
from umie.tasks.base import FieldTask, Query, span_item


@registry.register("med")
class MED(FieldTask[Event]):
    """Event types with trigger spans; an event that only the image shows has no trigger.

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
        events = sorted(record.events, key=lambda event: event.trigger or (-1, -1))
        raw = (
            grammar.ParsedItem(event.type)
            if event.trigger is None
            else span_item(event.type, record.text, event.trigger)
            for event in events
        )
        return [self._query(raw)]

    def answer_schema(self, record: Record, target: Any = None) -> grammar.AnswerSchema:
        """Return a schema of typed spans, and of types without a span."""
        return grammar.AnswerSchema(labels=self.labels, spans=True, bare=True)

    def _read(self, raw: grammar.ParsedItem, record: Record, target: Any) -> Event | None:
        if raw.places:
            return None
        if raw.filler is None:
            return Event(raw.label)
        span = grammar.locate(record.text, raw.filler, raw.occurrence)
        return Event(raw.label, span) if span else None
