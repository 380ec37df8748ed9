"""MNER: multimodal named entity recognition, with one query per record."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from umie.errors import UmieError, check_flag
from umie.records import Entity, Record
from umie.tasks import grammar, registry
from umie.tasks.base import FieldTask, Query, TaskConfig, region_names, regions_of, span_item
from umie.tasks.styles import STYLES


@dataclass(frozen=True, kw_only=True)
class MNERConfig(TaskConfig):
    """Labels, instruction and output style of MNER.

    Args:
        labels: the label schema, in the order of the instruction; None means the schema of the paper.
        variant: the instruction: ``paper`` (Table 2) or a paraphrase ``I0``, ``I1``, ``I2`` (Table 6).
        style: the output style of answers: ``structured`` (lossless), ``paper`` (as in Table 2) or ``released``.
        instruction: a custom instruction with ``{labels}`` instead of the variant; ``{{`` is a literal brace.
        grounded: also ask for the regions of the image that show each entity (grounded MNER, GMNER).

    Raises:
        UmieError: as for every task, or the style cannot write regions next to a span.
    """

    grounded: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        check_flag("grounded", self.grounded)
        if self.grounded and STYLES[self.style].span_opening is None:
            able = [name for name, style in STYLES.items() if style.span_opening is not None]
            raise UmieError(f"the style {self.style!r} cannot write regions next to a span: use {' or '.join(able)}")


@registry.register("mner")
class MNER(FieldTask[Entity]):
    """Typed spans of the text, if ``grounded`` with the regions that show each.

    Source: UMIE, Table 2 (instruction) and Table 6 (variants); Yu et al., Grounded Multimodal Named Entity Recognition
    on Social Media (2023), Section 3. Deviation: an entity is shown by any number of regions, pointed at by name, not
    by coordinates.
    """

    config: MNERConfig = field(default_factory=MNERConfig)

    Config = MNERConfig
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

    @property
    def names_regions(self) -> bool:
        """Whether answers refer to regions of the image."""
        return self.config.grounded

    @property
    def measure(self) -> str | None:
        """The measure ``grounded`` if regions are asked for."""
        return "grounded" if self.config.grounded else None

    def queries(self, record: Record) -> list[Query]:
        """Return one query; its answer lists the entities by position."""
        entities = sorted(record.entities, key=lambda entity: entity.span)
        return [self._query(self._item(entity, record) for entity in entities)]

    def answer_schema(self, record: Record, target: Any = None) -> grammar.AnswerSchema:
        """Return a schema of typed spans."""
        places = region_names(record) if self.config.grounded else ()
        return grammar.AnswerSchema(labels=self.labels, spans=True, places=places, grounded=bool(places))

    def _item(self, entity: Entity, record: Record) -> grammar.ParsedItem:
        regions = sorted(set(entity.regions)) if self.config.grounded else ()
        return span_item(entity.type, record.text, entity.span, map(grammar.region_name, regions))

    def _read(self, raw: grammar.ParsedItem, record: Record, target: Any) -> Entity | None:
        if raw.filler is None or (raw.places and not self.config.grounded):
            return None
        span, regions = grammar.locate(record.text, raw.filler, raw.occurrence), regions_of(raw.places, record)
        return None if span is None or regions is None else Entity(raw.label, span, record.text[slice(*span)], regions)
