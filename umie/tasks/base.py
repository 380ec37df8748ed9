"""The task contract: queries about a record, written answers, and parsing of generated answers."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from string import Formatter
from typing import Any, ClassVar, Generic, NamedTuple, TypeVar

from umie.errors import UmieError, UnknownNameError, check_flag, check_text
from umie.records import Entity, Event, Places, Record, Relation, Span
from umie.records.places import NOWHERE
from umie.tasks import grammar
from umie.tasks.calls import MODULES, called_places, calls_for, calls_in
from umie.tasks.styles import STYLES

I = TypeVar("I")  # noqa: E741 - the item type: Entity, Relation or Event

VARIANTS = ("paper", "I0", "I1", "I2")


class Pair(NamedTuple):
    """The head and the tail that an MRE query asks about: spans, or places where the text has no span."""

    head: Span | None
    tail: Span | None
    head_places: Places = NOWHERE
    tail_places: Places = NOWHERE


@dataclass(frozen=True, kw_only=True)
class TaskConfig:
    """Labels, instruction and output style of a task.

    Args:
        labels: the label schema, in the order of the instruction; None means the schema of the paper.
        variant: the instruction: ``paper`` (Table 2) or a paraphrase ``I0``, ``I1``, ``I2`` (Table 6).
        style: the output style of answers: ``structured`` (lossless), ``paper`` (as in Table 2), ``released``, or
            ``reamo``, which describes places by phrases for grounders instead of naming them.
        instruction: a custom instruction instead of the variant: a template with ``{labels}`` and the other fields of
            the task (MRE: ``{head}`` and ``{tail}``; MEAE: ``{type}``); ``{{`` is a literal brace.
        grounded: also ask for the places that show each item: regions of the image, tracks of the video, segments of
            the sound.

    Raises:
        UmieError: the variant or style is unknown, the style cannot write places next to a span, or a label is empty,
            repeated or has surrounding whitespace. When the task is built: the template has an unknown field, or a
            field is missing.
    """

    labels: tuple[str, ...] | None = None
    variant: str = "paper"
    style: str = "structured"
    instruction: str | None = None
    grounded: bool = False

    def __post_init__(self) -> None:
        if self.variant not in VARIANTS:
            raise UnknownNameError("instruction variant", self.variant, VARIANTS)
        if self.style not in STYLES:
            raise UnknownNameError("output style", self.style, STYLES)
        check_text("instruction", self.instruction)
        check_flag("grounded", self.grounded)
        if self.grounded and STYLES[self.style].span_opening is None:
            able = [name for name, style in STYLES.items() if style.span_opening is not None]
            raise UmieError(f"the style {self.style!r} cannot write places next to a span: use {' or '.join(able)}")
        if not self.grounded and STYLES[self.style].calls is not None:
            raise UmieError(f"the style {self.style!r} calls for places, which are not asked for: set grounded to true")
        if self.labels is None:
            return
        given: Any = self.labels
        if not isinstance(given, list | tuple) or not all(isinstance(label, str) for label in given):
            raise UmieError(f"labels is {given!r}: expected a list of strings")
        labels = tuple(given)
        object.__setattr__(self, "labels", labels)
        if not labels:
            raise UmieError("labels is empty: use at least one label, or leave it out for the paper's schema")
        counts = Counter(labels)
        for label in labels:
            if not label or label != label.strip() or counts[label] > 1:
                raise UmieError(f"label {label!r} is empty, repeated, or has surrounding whitespace")


@dataclass(frozen=True)
class Query:
    """A question about a record."""

    instruction: str
    answer: str  # the annotated answer in the output style
    target: Any = None  # the pair or the event that the question is about
    markers: tuple[str, ...] = ()  # strings of the output style that are single tokens if the tokenizer has them
    items: tuple[grammar.ParsedItem, ...] = ()  # the items of the annotated answer
    label_spans: tuple[Span, ...] = ()  # the characters of each label in the instruction
    hides_text: bool = False  # whether the input has only the instruction and the media

    def text_of(self, record: Record) -> str:
        """Return the text that the input contains."""
        return "" if self.hides_text else record.text


class Items(list[I], Generic[I]):
    """Items of an answer.

    ``dropped`` counts items that are malformed or not in the text or image. ``probabilities`` has the probability of
    each item, if the decoder reports it, and ``scored`` that of each well-formed item of the written answer.
    """

    def __init__(
        self,
        items: Iterable[I] = (),
        dropped: int = 0,
        probabilities: Iterable[float] = (),
        scored: Iterable[float] = (),
    ) -> None:
        super().__init__(items)
        self.dropped = dropped
        self.probabilities = list(probabilities)
        self.scored = tuple(scored)

    def extend_with(self, others: Items[I]) -> None:
        """Add the items of another answer that are new, and what it dropped."""
        new = [place for place, item in enumerate(others) if item not in self]
        self.extend(others[place] for place in new)
        self.probabilities.extend(others.probabilities[place] for place in new if others.probabilities)
        self.dropped += others.dropped

    def tempered(self, temperature: float) -> Items[I]:
        """Return the items with other probabilities: the log-odds of each are divided by a temperature."""
        values = [tempered(value, temperature) for value in self.probabilities]
        return Items(self, self.dropped, values, [tempered(value, temperature) for value in self.scored])

    def at_least(self, threshold: float) -> Items[I]:
        """Return the items whose probability is not below a threshold; all of them if the decoder reports none."""
        if not self.probabilities:
            return self
        kept = [place for place, value in enumerate(self.probabilities) if value >= threshold]
        values = [self.probabilities[place] for place in kept]
        return Items([self[place] for place in kept], self.dropped, values, self.scored)


def tempered(probability: float, temperature: float) -> float:
    """Return a probability whose log-odds are divided by a temperature; 0.5 stays as it is."""
    if not 0 < probability < 1:
        return probability
    return logistic(log_odds(probability) / temperature)


def log_odds(probability: float) -> float:
    """Return the logarithm of the odds of a probability, infinite for 0 and 1."""
    if not 0 < probability < 1:
        return math.copysign(math.inf, probability - 0.5)
    return math.log(probability) - math.log1p(-probability)


def logistic(value: float) -> float:
    """Return the logistic function in float64, in which probabilities near 1 still differ; in float32 many are 1."""
    return 1 / (1 + math.exp(min(-value, 700.0)))


@dataclass(frozen=True)
class Task(ABC, Generic[I]):
    """A task formatter: records to queries, generated strings to items.

    Training, evaluation, extraction, scoring and grids need nothing but a registered subclass. ``kind`` is the part of
    a record that contains its items: ``entities``, ``relations``, ``events`` or ``arguments``; it selects the measures
    and baselines of ``umie.scoring``. An empty string is a custom kind: an item is correct if it equals an annotated
    one. ``source`` is the task whose items this task asks about, e.g. MNER, because MRE asks about pairs of entities.
    If the task ``is_staged``, evaluation asks about predictions of ``source`` rather than about the annotation; its
    items are then parts of those of ``source``, as arguments are parts of events.
    """

    config: TaskConfig = field(default_factory=TaskConfig)

    Config: ClassVar[type[TaskConfig]] = TaskConfig
    name: ClassVar[str]  # the registered name
    default_labels: ClassVar[tuple[str, ...]]  # the default label schema
    label_noun: ClassVar[str]  # the thing that a label classifies: an entity, a relation, ...
    templates: ClassVar[Mapping[str, str]]  # the instruction of each variant, with {labels} and other fields
    kind: ClassVar[str] = ""
    source: ClassVar[str | None] = None
    is_staged: ClassVar[bool] = False
    is_auxiliary: ClassVar[bool] = False  # whether it is for training: used only where it is named
    is_free_text: ClassVar[bool] = False  # whether answers have no grammar, so that decoding is not constrained
    rank: ClassVar[int] = 100  # the position in tables and in the order of queries, ascending

    def __post_init__(self) -> None:
        if self.config.instruction is None:
            return
        if not self.config.instruction.strip():
            raise UmieError(f"instruction is {self.config.instruction!r}: expected a non-empty template")
        expected = _fields(self.templates["paper"])
        given = _fields(self.config.instruction)
        shown = f"the instruction {self.config.instruction!r} of {self.name}"
        for name in given:
            if name not in expected:
                known = " and ".join(f"{{{field}}}" for field in expected)
                raise UmieError(f"{shown} has the unknown field {{{name}}}; use {known}, or {{{{ for a brace")
        missing = [name for name in expected if name not in given]
        if missing:
            raise UmieError(f"{shown} is missing the placeholder {{{missing[0]}}}")

    @property
    def labels(self) -> tuple[str, ...]:
        """The label schema: the configured one, or the default."""
        return self.default_labels if self.config.labels is None else self.config.labels

    @property
    def names_places(self) -> bool:
        """Whether answers refer to places, such as regions of the image."""
        return self.config.grounded

    @property
    def measure(self) -> str | None:
        """The measure of ``umie.scoring`` that this task is judged by; None for the main one of its kind."""
        return "grounded" if self.config.grounded else None

    @property
    def field_labels(self) -> tuple[str, ...]:
        """Fields of the instruction that are labels too, of items with only places, such as ``head``."""
        return ()

    @property
    def style(self) -> grammar.Style:
        """The output style, which writes and parses answers and can constrain decoding."""
        return STYLES[self.config.style]

    @property
    def instruction_template(self) -> str:
        """The custom instruction or that of the variant, with ``{labels}`` and the other fields of the task."""
        return self.config.instruction or self.templates[self.config.variant]

    def place_names(self, record: Record) -> tuple[str, ...]:
        """Return the names of places that answers can contain; of calls, the modules for the media of the record."""
        if self.style.calls is not None:
            return tuple(MODULES[medium] for medium in record.media)
        return record.place_names()

    @abstractmethod
    def queries(self, record: Record) -> list[Query]:
        """Return the queries about a record; their number depends on the task."""

    @abstractmethod
    def answer_schema(self, record: Record, target: Any = None) -> grammar.AnswerSchema:
        """Return the schema of the answer to a query about a record; ``target`` is ``Query.target``."""

    @abstractmethod
    def items(self, record: Record) -> list[I]:
        """Return the record's annotated items of this task."""

    @abstractmethod
    def with_items(self, record: Record, items: Iterable[I]) -> Record:
        """Return the record with these items as its only annotation of this task, and without gold."""

    @abstractmethod
    def used_labels(self, record: Record) -> Iterator[str]:
        """Yield the labels of this task in the annotation of the record, with repetitions."""

    @abstractmethod
    def _read(self, raw: grammar.ParsedItem, record: Record, target: Any) -> I | None:
        """Return the item of a well-formed parsed item, or None if it is not in the record."""

    def _read_all(self, raw_items: Sequence[grammar.ParsedItem], record: Record, target: Any) -> list[I | None]:
        """Return the item of each parsed item of an answer; see ``_read``."""
        return [self._read(raw, record, target) for raw in raw_items]

    def parse(self, output: str, record: Record, target: Any = None, probabilities: Sequence[float] = ()) -> Items[I]:
        """Parse a generated answer; no string is an error.

        Args:
            output: the generated string.
            record: the record, in whose text spans must occur, and which must have the places that are named.
            target: ``Query.target`` of the query. Without the target that MRE and MEAE need, all items are dropped.
            probabilities: the probability of each well-formed item of the output, if known.

        Returns:
            The distinct items in the order of the output; ``.dropped`` counts the others. Labels outside the schema are
            kept, because scoring judges them.
        """
        raw_items, dropped = self.style.parse(output, self.answer_schema(record, target))
        if self.style.is_numbered:
            read = self._read_all(raw_items, record, target)
        else:  # an occurrence beyond the last one in the text counts as the first
            numbered = list(grammar.with_occurrences(raw_items))
            first = [replace(raw, occurrence=1) for raw in numbered]
            both = self._read_all(numbered, record, target), self._read_all(first, record, target)
            read = [item or other for item, other in zip(*both, strict=True)]
        values = dict(zip(reversed(read), reversed(probabilities), strict=True)) if probabilities else {}
        items = list(dict.fromkeys(item for item in read if item is not None))
        own = [values[item] for item in items] if values else ()
        return Items(items, dropped + read.count(None), own, probabilities)

    def read(self, scored: Mapping[grammar.ParsedItem, float], record: Record, target: Any = None) -> Items[I]:
        """Return the items of an answer that was not generated, with the probability of each; see ``parse``."""
        read = dict(zip(scored, self._read_all(list(scored), record, target), strict=True))
        found: dict[I, float] = {}
        for raw, item in read.items():
            if item is not None:
                found.setdefault(item, scored[raw])
        return Items(found, sum(item is None for item in read.values()), found.values())

    def target_spans(self, target: Any) -> tuple[Span | None, ...]:
        """Return the spans of the text that a query with this target is about."""
        return ()

    def target_places(self, target: Any) -> tuple[Places, ...]:
        """Return the places that a query with this target is about, where the query names them in place of spans."""
        return ()

    def probability_of(self, item: I) -> float | None:
        """Return the probability of an item of a record; None if it has none, or a model did not report it."""
        return getattr(item, "probability", None)

    def with_probability(self, item: I, probability: float) -> I:
        """Return an item that says its probability, if it can."""
        known = isinstance(item, Entity | Relation | Event)
        return replace(item, probability=probability) if known else item  # type: ignore[type-var] # a dataclass

    def with_probabilities(self, items: Items[I]) -> Items[I]:
        """Return the items of an answer, each with its probability, if the decoder reports it."""
        if not items.probabilities:
            return items
        own = zip(items, items.probabilities, strict=True)
        said = [self.with_probability(item, value) for item, value in own]
        return Items(said, items.dropped, items.probabilities, items.scored)

    def label_of(self, item: I) -> str:
        """Return the label of an item, for scores per label."""
        return str(getattr(item, "type", ""))

    def is_annotated(self, record: Record) -> bool:
        """Return whether a record without a list of tasks has annotation of this task."""
        return bool(self.items(record))

    def needs_source(self, given: Record, asked: Collection[str]) -> bool:
        """Return whether extraction of the tasks ``asked`` uses predictions of ``source``, not items of ``given``."""
        return self.source is not None

    def with_subjects(
        self, found: Record, given: Record, *, from_source: bool, max_subjects: int | None = None
    ) -> tuple[Record, int]:
        """Return the record with at most ``max_subjects`` items to ask about, without answers, and the number of all.

        Args:
            found: the record with the predictions of other tasks.
            given: the record that the user passed.
            from_source: whether to ask about predictions of ``source`` or about items of ``given``.
            max_subjects: the maximum number of items to ask about.
        """
        return found, 0

    def check(self, record: Record) -> None:
        """Raise UnknownNameError if the annotation of the record has a label outside the schema."""
        for label in self.used_labels(record):
            if label not in self.labels:
                raise UnknownNameError(f"{self.name} label", label, self.labels)

    def _query(
        self,
        items: Iterable[grammar.ParsedItem],
        target: Any = None,
        pair: tuple[str, str] | None = None,
        **fields: str,
    ) -> Query:
        """Return a query whose annotated answer has these items; see ``Style.linearize`` for ``pair``.

        Args:
            items: the items.
            target: what the query is about.
            pair: the strings of head and tail if the query asks about a pair.
            fields: the fields of the instruction, without ``labels``.
        """
        items = tuple(items)
        instruction, starts = "", []
        places: dict[str, Span] = {}  # the characters of each field
        for literal, name, _, _ in Formatter().parse(self.instruction_template):
            instruction += literal
            if name == "labels":
                starts.append(len(instruction))
                instruction += ", ".join(self.labels)
            elif name is not None:
                places[name] = len(instruction), len(instruction) + len(fields[name])
                instruction += fields[name]
        label_spans, start = [], starts[0]
        for label in self.labels:
            label_spans.append((start, start + len(label)))
            start += len(label) + len(", ")
        label_spans += [places[field] for field in self.field_labels]
        answer = self.style.linearize(items, pair)
        return Query(instruction, answer, target, self.style.markers, items, tuple(label_spans))


class FieldTask(Task[I]):
    """A task whose items are the field ``kind`` of a record; each has a ``type``, its label."""

    def items(self, record: Record) -> list[I]:
        """Return the record's items, including unrelated pairs."""
        return list(getattr(record, self.kind))

    def with_items(self, record: Record, items: Iterable[I]) -> Record:
        """Return the record with these items."""
        return replace(record, gold=None, **{self.kind: tuple(items)})  # type: ignore[arg-type] # a field of annotation

    def used_labels(self, record: Record) -> Iterator[str]:
        """Yield the types of the items."""
        return (item.type for item in getattr(record, self.kind))


def _fields(template: str) -> list[str]:
    """Return the distinct fields of a template as written; raise UmieError if the template is invalid."""
    try:
        parts = list(Formatter().parse(template))
    except ValueError as error:
        raise UmieError(f"the instruction {template!r} is not a valid template: {error}") from error
    # conversions and format specifications are kept in the name, so that such fields are unknown
    written = [
        name + (f"!{conversion}" if conversion else "") + (f":{form}" if form else "")
        for _, name, form, conversion in parts
        if name is not None
    ]
    return list(dict.fromkeys(written))


def merged(answers: Iterable[Items[Any]], records: Iterable[Record], task: Task[Any]) -> list[Items[Any]]:
    """Return the items of each record from the answers to its queries, in the order of ``Task.queries``."""
    remaining = iter(answers)
    found = []
    for record in records:
        items: Items[Any] = Items()
        for _ in task.queries(record):
            items.extend_with(next(remaining))
        found.append(items)
    return found


def written(
    label: str, record: Record, span: Span | None, places: Places = NOWHERE, style: grammar.Style | None = None
) -> grammar.ParsedItem:
    """Return the written form of a label with a span, with places that show it, or with both.

    Places are written as names, or as calls if the style has them.
    """
    surface = None if span is None else record.text[slice(*span)]
    is_called = style is not None and style.calls is not None
    names = calls_for(record, places, surface or label) if is_called else places.names
    occurrence = 1 if span is None else grammar.occurrence_of(record.text, span)
    return grammar.ParsedItem(label, surface, names, occurrence)


def span_of(raw: grammar.ParsedItem, record: Record) -> Span | None:
    """Return the span of a written item, or None if it has none or the text does not contain it."""
    return None if raw.filler is None else grammar.locate(record.text, raw.filler, raw.occurrence)


def places_of(raw: grammar.ParsedItem, record: Record) -> Places | None:
    """Return the places that a written item names or calls for; None if the record does not have one of them."""
    if any(calls_in(raw.places)):
        return called_places(raw.places, record)
    places = Places.named(raw.places)
    return places if places is not None and record.has(places) else None
