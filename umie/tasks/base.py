"""The task contract: what is asked about a record, how the answer is written, and how it is read back."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from string import Formatter
from typing import Any, ClassVar, Generic, NamedTuple, TypeVar

from umie.errors import UmieError, UnknownNameError, check_text
from umie.records import Record, Span
from umie.tasks import grammar
from umie.tasks.styles import STYLES

I = TypeVar("I")  # noqa: E741 - the item type: Entity, Relation or Event

VARIANTS = ("paper", "I0", "I1", "I2")


class Pair(NamedTuple):
    """The head and tail spans that an MRE query asks about."""

    head: Span
    tail: Span


@dataclass(frozen=True, kw_only=True)
class TaskConfig:
    """What a task asks for and how it words the question.

    Args:
        labels: the label schema, in the order in which the instruction lists it; None takes the paper's.
        variant: the instruction: ``paper`` (Table 2) or a rewording ``I0``, ``I1``, ``I2`` (Table 6).
        style: how targets are written: ``structured`` (lossless), ``paper`` (as in Table 2) or ``released``.
        instruction: an instruction of one's own in place of the variant's: a template with ``{labels}`` and the
            task's other fields (MRE: ``{head}`` and ``{tail}``; MEAE: ``{type}``); ``{{`` writes a brace.

    Raises:
        UmieError: an unknown variant or style, an empty, repeated or padded label; by the task that is built: a
            template with a field that the task does not have, or without one that it has.
    """

    labels: tuple[str, ...] | None = None
    variant: str = "paper"
    style: str = "structured"
    instruction: str | None = None

    def __post_init__(self) -> None:
        if self.variant not in VARIANTS:
            raise UnknownNameError("instruction variant", self.variant, VARIANTS)
        if self.style not in STYLES:
            raise UnknownNameError("output style", self.style, STYLES)
        check_text("instruction", self.instruction)
        if self.labels is None:
            return
        given: Any = self.labels
        if not isinstance(given, list | tuple) or not all(isinstance(label, str) for label in given):
            raise UmieError(f"labels is {given!r}: give a list of strings")
        labels = tuple(given)
        object.__setattr__(self, "labels", labels)
        if not labels:
            raise UmieError("labels is empty: give at least one, or leave it out for the paper's")
        for label in labels:
            if not label or label != label.strip() or labels.count(label) > 1:
                raise UmieError(f"label {label!r} is empty, repeated, or has white space around it")


@dataclass(frozen=True)
class Query:
    """One question about a record.

    Args:
        instruction: the question.
        answer: the annotated answer, as the output style writes it.
        target: the pair or the event that it is about.
        markers: what the output style writes as tokens of its own, where the tokenizer has them.
    """

    instruction: str
    answer: str
    target: Any = None
    markers: tuple[str, ...] = ()


class Items(list[I], Generic[I]):
    """Items read from an output; ``dropped`` counts what was ill-formed, not in the text, or no region."""

    def __init__(self, items: Iterable[I] = (), dropped: int = 0) -> None:
        super().__init__(items)
        self.dropped = dropped


@dataclass(frozen=True)
class Task(ABC, Generic[I]):
    """A task formatter: records to queries, generated strings to items.

    A registered subclass is all that training, evaluation, extraction, scoring and grids need to know about a task.

    Class attributes:
        name: the registered name.
        default_labels: the label schema where none is given.
        label_noun: what a label names: an entity, a relation, ...
        templates: the instruction of each variant, with ``{labels}`` and the task's own fields.
        kind: what its items are in a record: ``entities``, ``relations``, ``events`` or ``arguments``. The measures
            and baselines of ``umie.scoring`` are defined by kind. An empty string stands for a kind of its own: an item
            is then right if it equals an annotated one.
        source: the task that finds what this one asks about, e.g. MNER the entities whose pairs MRE asks about.
        is_staged: whether evaluation asks about what ``source`` predicted rather than about the annotation; its items
            then belong to those of ``source``, as arguments belong to events.
        names_regions: whether answers name regions of the image by their number.
        rank: its place in tables and in the order of asking, ascending.
    """

    config: TaskConfig = field(default_factory=TaskConfig)

    Config: ClassVar[type[TaskConfig]] = TaskConfig
    name: ClassVar[str]
    default_labels: ClassVar[tuple[str, ...]]
    label_noun: ClassVar[str]
    templates: ClassVar[Mapping[str, str]]
    kind: ClassVar[str] = ""
    source: ClassVar[str | None] = None
    is_staged: ClassVar[bool] = False
    names_regions: ClassVar[bool] = False
    rank: ClassVar[int] = 100

    def __post_init__(self) -> None:
        if self.config.instruction is None:
            return
        if not self.config.instruction.strip():
            raise UmieError(f"instruction is {self.config.instruction!r}: write one, or leave it out")
        wanted = _fields(self.templates["paper"])
        given = _fields(self.config.instruction)
        shown = f"the instruction {self.config.instruction!r} of {self.name}"
        for name in given:
            if name not in wanted:
                has = " and ".join(f"{{{field}}}" for field in wanted)
                raise UmieError(f"{shown} has the field {{{name}}}: the task has {has}; write a brace twice for itself")
        lacking = [name for name in wanted if name not in given]
        if lacking:
            raise UmieError(f"{shown} lacks the field {{{lacking[0]}}}: put it where its value shall stand")

    @property
    def labels(self) -> tuple[str, ...]:
        """The label schema in force."""
        return self.default_labels if self.config.labels is None else self.config.labels

    @property
    def style(self) -> grammar.Style:
        """The output style in force: it writes targets, reads outputs, and can constrain decoding."""
        return STYLES[self.config.style]

    @property
    def instruction_template(self) -> str:
        """The wording of the user or of the chosen variant, with ``{labels}`` and the task's own fields."""
        return self.config.instruction or self.templates[self.config.variant]

    @abstractmethod
    def queries(self, record: Record) -> list[Query]:
        """Return what is asked about a record; see the task for how many queries that is."""

    @abstractmethod
    def answer_schema(self, text: str, target: Any = None, num_regions: int = 0) -> grammar.AnswerSchema:
        """Return which items the answer to a query may hold; the arguments are those of ``parse``."""

    @abstractmethod
    def items(self, record: Record) -> list[I]:
        """Return the record's annotated items of this task."""

    @abstractmethod
    def with_items(self, record: Record, items: Iterable[I]) -> Record:
        """Return the record with these items as its only annotation of this task."""

    @abstractmethod
    def used_labels(self, record: Record) -> Iterator[str]:
        """Yield every label of this task that the record's annotation uses."""

    @abstractmethod
    def _read(self, raw: grammar.ParsedItem, text: str, target: Any, num_regions: int) -> I | None:
        """Turn one well-formed raw item into an item, or None if it has no place in text or image."""

    def parse(self, output: str, text: str, target: Any = None, num_regions: int = 0) -> Items[I]:
        """Read the items of a generated string; any string is allowed, and none raises.

        Args:
            output: what a decoder generated.
            text: the record's text, which spans must occur in.
            target: ``Query.target`` of the query that was asked. Without the target that MRE and MEAE need,
                every item is dropped.
            num_regions: how many regions the record has.

        Returns:
            The items without repetitions, in the order of the output; ``.dropped`` counts the rest. A label
            outside the schema is kept: scoring decides whether it is right.
        """
        raw_items, dropped = self.style.parse(output, self.answer_schema(text, target, num_regions))
        if self.style.is_numbered:
            read = [self._read(raw, text, target, num_regions) for raw in raw_items]
        else:  # one mention more than the text has repeats the first
            read = [
                self._read(raw, text, target, num_regions)
                or self._read(replace(raw, occurrence=1), text, target, num_regions)
                for raw in grammar.with_occurrences(raw_items)
            ]
        return Items(dict.fromkeys(item for item in read if item is not None), dropped + read.count(None))

    def label_of(self, item: I) -> str:
        """Return the label of an item, by which scores are broken down."""
        return str(getattr(item, "type", ""))

    def is_annotated(self, record: Record) -> bool:
        """Say whether a record that names no tasks holds annotation of this one."""
        return bool(self.items(record))

    def needs_source(self, given: Record, asked: Collection[str]) -> bool:
        """Say whether extraction asks about what ``source`` finds, rather than about what the record holds.

        Args:
            given: the record as it was given.
            asked: the names of all tasks of the call.
        """
        return self.source is not None

    def with_subjects(
        self, found: Record, given: Record, *, from_source: bool, max_subjects: int | None = None
    ) -> tuple[Record, int]:
        """Return the record with what this task asks about, without answers, and how many subjects there were.

        Args:
            found: the record with what other tasks have found in it.
            given: the record as it was given.
            from_source: whether to ask about what ``source`` found, or about what the given record holds.
            max_subjects: the most subjects to ask about.
        """
        return found, 0

    def check(self, record: Record) -> None:
        """Raise UmieError if the record's annotation uses a label outside the schema."""
        for label in self.used_labels(record):
            if label not in self.labels:
                raise UnknownNameError(f"{self.name} label", label, self.labels)

    def _instruct(self, **fields: str) -> str:
        return self.instruction_template.format(labels=", ".join(self.labels), **fields)


def _fields(template: str) -> list[str]:
    """Return the fields of a template as they are written, each once; raise UmieError if it is none."""
    try:
        parts = list(Formatter().parse(template))
    except ValueError as error:
        raise UmieError(f"the instruction {template!r} is no template: {error}") from error
    # a conversion or a format is shown as a part of the name, so that neither is taken
    written = [
        name + (f"!{conversion}" if conversion else "") + (f":{form}" if form else "")
        for _, name, form, conversion in parts
        if name is not None
    ]
    return list(dict.fromkeys(written))


def span_item(label: str, text: str, span: Span) -> grammar.ParsedItem:
    """Return the raw form of a labeled span."""
    start, end = span
    return grammar.ParsedItem(label, text[start:end], occurrence=grammar.occurrence_of(text, span))
