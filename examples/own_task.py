"""A custom task outside the package: find hashtags, and whether each names an event or a topic."""

from dataclasses import replace
from typing import ClassVar

from umie.records import Entity
from umie.tasks import Task, grammar, registry
from umie.tasks.base import written


@registry.register("hashtags")
class Hashtags(Task[Entity]):
    """Typed hashtags of the text; they are a record's entities."""

    name = "hashtags"
    kind = "entities"  # scored by the measures of entities
    default_labels = ("event", "topic")
    label_noun = "hashtag"
    templates: ClassVar = dict.fromkeys(("paper", "I0", "I1", "I2"), "Which hashtags name one of: {labels}?")

    def queries(self, record):
        items = [written(entity.type, record, entity.span) for entity in record.entities]
        return [self._query(items)]

    def answer_schema(self, record, target=None):
        return grammar.AnswerSchema(labels=self.labels, spans=True)

    def items(self, record):
        return list(record.entities)

    def with_items(self, record, items):
        return replace(record, entities=tuple(items))

    def used_labels(self, record):
        return (entity.type for entity in record.entities)

    def _read(self, raw, record, target):
        span = None if raw.filler is None else grammar.locate(record.text, raw.filler, raw.occurrence)
        return None if span is None else Entity(raw.label, span, record.text[slice(*span)])
