"""MNER: multimodal named entity recognition, with one query per record."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from umie.records import Entity, Record
from umie.records.places import NOWHERE
from umie.tasks import grammar, registry
from umie.tasks.base import FieldTask, Query, places_of, span_of, written


@registry.register("mner")
class MNER(FieldTask[Entity]):
    """Typed spans of the text, if ``grounded`` with the places that show each; places only where there is no text.

    Source: UMIE, Table 2 (instruction) and Table 6 (variants); Yu et al., Grounded Multimodal Named Entity Recognition
    on Social Media (2023), Section 3. Deviation: an entity is shown by any number of places, pointed at by name, not by
    coordinates.
    """

    name = "mner"
    default_labels = ("person", "location", "miscellaneous", "organization")
    kind = "entities"
    rank = 0
    label_noun = "entity"
    templates: ClassVar[Mapping[str, str]] = {
        "paper": "Please extract the following entity type: {labels}.",
        "I0": "Given the entity types: {labels}. Please extract the specified entity type.",
        "I1": "Identity the following entity type from the given sentence: {labels}.",  # as printed
        "I2": "Please extract entity type in the sentence. Option: {labels}.",
    }

    def queries(self, record: Record) -> list[Query]:
        """Return one query; its answer lists the entities by position.

        A query about a text is about its mentions; entities without a span are asked about where there is no text.
        """
        grounded = self.config.grounded
        by_place = grounded and not record.text.strip()
        entities = [entity for entity in record.entities if entity.span is not None or by_place]
        entities.sort(key=lambda entity: (entity.span is None, entity.span or (), entity.places if grounded else ()))
        return [
            self._query(
                written(entity.type, record, entity.span, entity.places if grounded else NOWHERE, self.style)
                for entity in entities
            )
        ]

    def answer_schema(self, record: Record, target: Any = None) -> grammar.AnswerSchema:
        """Return a schema of typed spans, of typed places in a record without text."""
        places = self.place_names(record) if self.config.grounded else ()
        return grammar.AnswerSchema(
            labels=self.labels,
            spans=True,
            places=places,
            placed_labels=() if record.text.strip() or not places else self.labels,
            grounded=bool(places),
        )

    def _read(self, raw: grammar.ParsedItem, record: Record, target: Any) -> Entity | None:
        span, places = span_of(raw, record), places_of(raw, record)
        if places is None or (places and not self.config.grounded):
            return None
        if span is None:
            return None if raw.filler is not None or not places else Entity(raw.label, None, "", *places)
        return Entity(raw.label, span, record.text[slice(*span)], *places)
