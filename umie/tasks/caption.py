"""Captions: what a text says about its media, from the media alone; for the alignment of encoders and decoder."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any, ClassVar

from umie.errors import UmieError
from umie.records import Record
from umie.tasks import grammar, registry
from umie.tasks.base import Query, Task

CAPTION = "caption"


class Plain(grammar.Style):
    """The answer is the text, as it is."""

    name = "plain"

    def opening(self, label: str) -> str:
        """Return nothing."""
        return ""

    def bare(self, label: str, pair: tuple[str, str] | None = None) -> str:
        """Return nothing."""
        return ""

    def linearize(self, items: Iterable[grammar.ParsedItem], pair: tuple[str, str] | None = None) -> str:
        """Return the text."""
        return " ".join(item.filler or "" for item in items)

    def parse(self, output: str, schema: grammar.AnswerSchema) -> tuple[list[grammar.ParsedItem], int]:
        """Return the text, unless it is empty."""
        return ([grammar.ParsedItem(CAPTION, output.strip())] if output.strip() else []), 0


PLAIN = Plain()


@registry.register("caption")
class Caption(Task[str]):
    """The text of a record, which the input does not contain, from its media; an item is a whole text.

    In REAMO's second stage of tuning, only the projection of the media is trained, on captions of images, videos and
    sounds (2024, Section 4). Answers are free text, without a grammar.
    """

    name = "caption"
    is_auxiliary = True
    default_labels = (CAPTION,)
    rank = 4
    label_noun = "caption"
    is_free_text = True
    templates: ClassVar[Mapping[str, str]] = {
        "paper": "Please write the {labels}.",
        "I0": "Given are media. Please write their {labels}.",
        "I1": "Write the following for what is shown or heard: {labels}.",
        "I2": "What is shown or heard? Write a {labels}.",
    }

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.config.grounded:
            raise UmieError("captions have no places: leave grounded out")

    @property
    def style(self) -> grammar.Style:
        """The text as it is, whatever the style of other tasks."""
        return PLAIN

    def queries(self, record: Record) -> list[Query]:
        """Return one query about a record with a text and media."""
        if not record.media or not record.text.strip():
            return []
        return [replace(self._query([grammar.ParsedItem(CAPTION, record.text)]), hides_text=True)]

    def answer_schema(self, record: Record, target: Any = None) -> grammar.AnswerSchema:
        """Return a schema of free text."""
        return grammar.AnswerSchema(labels=self.labels)

    def items(self, record: Record) -> list[str]:
        """Return the text, with single spaces."""
        return [" ".join(record.text.split())] if record.media and record.text.strip() else []

    def with_items(self, record: Record, items: Iterable[str]) -> Record:
        """Return a record of the media with this text."""
        return replace(record, text=next(iter(items), ""), entities=(), relations=(), events=(), gold=None)

    def label_of(self, item: str) -> str:
        """Return the only label."""
        return self.labels[0]

    def used_labels(self, record: Record) -> Iterator[str]:
        """Yield the only label."""
        return (CAPTION for _ in self.items(record))

    def is_annotated(self, record: Record) -> bool:
        """Return False: a text is a caption only where a record lists the task."""
        return False

    def _read(self, raw: grammar.ParsedItem, record: Record, target: Any) -> str | None:
        return " ".join((raw.filler or "").split()) or None
