"""MNER: multimodal named entity recognition, with one query per record."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from umie.records import Entity, Record
from umie.tasks import grammar, registry
from umie.tasks.base import FieldTask, Query, span_item


@registry.register("mner")
class MNER(FieldTask[Entity]):
    """Typed spans of the text. Source: UMIE, Table 2 (instruction) and Table 6 (variants)."""

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
        """Return one query; its answer lists the entities by position."""
        entities = sorted(record.entities, key=lambda entity: entity.span)
        return [self._query(span_item(entity.type, record.text, entity.span) for entity in entities)]

    def answer_schema(self, text: str, target: Any = None, num_regions: int = 0) -> grammar.AnswerSchema:
        """Return a schema of typed spans."""
        return grammar.AnswerSchema(labels=self.labels, spans=True)

    def _read(self, raw: grammar.ParsedItem, text: str, target: Any, num_regions: int) -> Entity | None:
        if raw.filler is None or raw.is_region:
            return None
        span = grammar.locate(text, raw.filler, raw.occurrence)
        return Entity(raw.label, span, text[slice(*span)]) if span else None
