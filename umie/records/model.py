"""Frozen dataclasses of a record and its annotation; spans and boxes are checked on construction."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from umie.errors import UmieError, check_characters, shown
from umie.files import inside
from umie.records.offsets import advice

if TYPE_CHECKING:
    from PIL.Image import Image

Span: TypeAlias = tuple[int, int]
Box: TypeAlias = tuple[float, float, float, float]

_TOO_LARGE = 1e300  # for the edge of a box: an integer that is no float, or infinity; NaN is not below it either
NO_RELATION = "none"  # the type of an annotated pair without a relation; never counted as a positive


@dataclass(frozen=True)
class Region:
    """A region of interest of the image; ``label`` is the name assigned by a detector or an annotator."""

    box: Box
    label: str | None = None

    def __post_init__(self) -> None:
        box = tuple(self.box)
        numbers = [edge for edge in box if isinstance(edge, int | float) and not isinstance(edge, bool)]
        if not len(box) == len(numbers) == 4 or not all(abs(edge) < _TOO_LARGE for edge in numbers):
            raise UmieError(f"box {shown(list(box))} must be four finite numbers x1, y1, x2, y2")
        x1, y1, x2, y2 = (float(edge) for edge in box)
        if not (0 <= x1 < x2 <= 1 and 0 <= y1 < y2 <= 1):
            raise UmieError(
                f"box {list(box)} is not inside the image: expected x1 < x2 and y1 < y2, all relative (0..1)"
            )
        object.__setattr__(self, "box", (x1, y1, x2, y2))


@dataclass(frozen=True)
class Entity:
    """A typed span.

    ``text`` is the covered text (a Record fills it in, or checks it); ``regions`` are the indices of the regions of the
    image that show the entity.
    """

    type: str
    span: Span
    text: str = ""
    regions: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "span", check_span(self.span, "entity span"))
        object.__setattr__(self, "regions", tuple(self.regions))
        for region in self.regions:
            _check_index(region, "entity")


@dataclass(frozen=True)
class Relation:
    """A directed relation from a head span to a tail span; the type ``none`` marks an unrelated pair."""

    type: str
    head: Span
    tail: Span

    def __post_init__(self) -> None:
        object.__setattr__(self, "head", check_span(self.head, "relation head"))
        object.__setattr__(self, "tail", check_span(self.tail, "relation tail"))


@dataclass(frozen=True)
class Argument:
    """The filler of an event role: a span of the text, or the index of a region of the image."""

    role: str
    span: Span | None = None
    region: int | None = None

    def __post_init__(self) -> None:
        if (self.span is None) == (self.region is None):
            raise UmieError(f"argument {shown(self.role)} needs either a span or a region")
        if self.span is not None:
            object.__setattr__(self, "span", check_span(self.span, f"argument {shown(self.role)}"))
        else:
            _check_index(self.region, f"argument {shown(self.role)}")


@dataclass(frozen=True)
class Event:
    """An event with its trigger span (None if only the image shows the event) and its arguments."""

    type: str
    trigger: Span | None = None
    arguments: tuple[Argument, ...] = ()

    def __post_init__(self) -> None:
        if self.trigger is not None:
            object.__setattr__(self, "trigger", check_span(self.trigger, "event trigger"))
        object.__setattr__(self, "arguments", tuple(self.arguments))


@dataclass(frozen=True)
class Record:
    """A text with at most one image, and the annotation of both.

    Args:
        text: the text; it may be empty only if there is an image.
        image: file name or path of the image (stored as a string), a PIL image, or None.
        regions: regions of the image.
        entities: typed spans (MNER).
        relations: typed pairs of spans, including unrelated ones (MRE).
        events: events with trigger and arguments (MED, MEAE).
        id: identifies the record in messages and in files of predictions.
        tasks: names of the tasks that this record is annotated for; None means all tasks.
        source: the data set and file that the record comes from.
        license: a note on permitted uses of the source.
        labels: the label schema of each task; None if unknown.
        image_folder: the directory that a relative ``image`` is in and may not leave; not part of the JSONL line.

    Raises:
        UmieError: there is neither text nor image, a span is outside the text, or a region does not exist.
    """

    text: str
    image: str | Path | Image | None = None
    regions: tuple[Region, ...] = ()
    entities: tuple[Entity, ...] = ()
    relations: tuple[Relation, ...] = ()
    events: tuple[Event, ...] = ()
    id: str | None = None
    tasks: tuple[str, ...] | None = None
    source: str | None = None
    license: str | None = None
    labels: Mapping[str, tuple[str, ...]] | None = field(default=None, hash=False)
    image_folder: str | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        if not isinstance(self.text, str):
            raise UmieError(f"text is {shown(self.text)}: expected a string")
        if not self.text.strip() and self.image is None:
            raise UmieError("text is empty: every record needs a non-empty text or an image")
        check_characters(self.text, "text")
        for name, kind in _ITEMS.items():
            items = getattr(self, name)
            if not isinstance(items, tuple):
                if not isinstance(items, Iterable) or isinstance(items, str | bytes | Mapping):
                    raise UmieError(f"{name} is {shown(items)}: use a list of umie.{kind.__name__} objects")
                items = tuple(items)
            for item in items:
                if not isinstance(item, kind):
                    raise UmieError(f"{name} holds {shown(item)}: use umie.{kind.__name__} objects")
            object.__setattr__(self, name, items)
        if self.tasks is not None:
            given: Any = self.tasks
            if isinstance(given, str):
                raise UmieError(f"tasks is {given!r}: use a list of names, [{given!r}]")
            object.__setattr__(self, "tasks", tuple(given))
        if self.labels is not None:
            object.__setattr__(self, "labels", check_schema(self.labels))
        if isinstance(self.image, Path):
            object.__setattr__(self, "image", str(self.image))
        object.__setattr__(self, "entities", tuple(self._with_text(entity) for entity in self.entities))
        for _, span in annotated_spans((), self.relations, self.events):
            self.surface(span)
        for owner, region in region_references(self.entities, self.events):
            check_region(owner, region, len(self.regions))

    def surface(self, span: Span) -> str:
        """Return the text that ``span`` covers; raise UmieError if it is empty or not inside the text."""
        start, end = span
        if not 0 <= start < end <= len(self.text):
            problem = f"is not inside the text of {len(self.text)} characters{advice(self.text, span)}"
            raise UmieError(f"span [{start}, {end}] {problem}")
        return self.text[start:end]

    def annotated_for(self, task: str) -> bool:
        """Return whether the record is annotated for ``task``."""
        return self.tasks is None or task in self.tasks

    def image_path(self) -> Path | None:
        """Return the path of the image, or None if there is no image or it is held in memory.

        Raises:
            UmieError: the path is outside the image folder (through ``..``, a symlink, or an absolute path).
        """
        if not isinstance(self.image, str):
            return None
        if self.image_folder is None:
            return Path(self.image)
        return inside(self.image_folder, self.image).resolve()

    def _with_text(self, entity: Entity) -> Entity:
        covered = self.surface(entity.span)
        if entity.text not in ("", covered):
            raise UmieError(
                f"entity text {shown(entity.text)} differs from the text of its span {list(entity.span)}, "
                f"{shown(covered)}{advice(self.text, entity.span, entity.text)}"
            )
        return entity if entity.text else replace(entity, text=covered)


_ITEMS: Mapping[str, type] = {"regions": Region, "entities": Entity, "relations": Relation, "events": Event}


def annotated_spans(
    entities: Iterable[Entity], relations: Iterable[Relation], events: Iterable[Event]
) -> Iterator[tuple[str, Span]]:
    """Yield every span of an annotation, with the term for it in messages."""
    for entity in entities:
        yield "entity", entity.span
    for relation in relations:
        yield "relation head", relation.head
        yield "relation tail", relation.tail
    for event in events:
        if event.trigger is not None:
            yield "event trigger", event.trigger
        for argument in event.arguments:
            if argument.span is not None:
                yield f"argument {shown(argument.role)}", argument.span


def region_references(entities: Iterable[Entity], events: Iterable[Event]) -> Iterator[tuple[str, int]]:
    """Yield every index of a region in an annotation, with the term for its owner in messages."""
    for entity in entities:
        for region in entity.regions:
            yield f"entity {shown(entity.text)}", region
    for event in events:
        for argument in event.arguments:
            if argument.region is not None:
                yield f"argument {shown(argument.role)}", argument.region


def check_region(owner: str, region: int, num_regions: int) -> None:
    """Raise UmieError, which names ``owner``, if a region does not exist."""
    if region >= num_regions:
        raise UmieError(
            f"{owner} refers to region {region}, but the record has {num_regions} regions (indices count from 0)"
        )


def check_schema(given: Any) -> dict[str, tuple[str, ...]]:
    """Return the labels of each task as tuples; raise UmieError if they are not lists of strings."""
    if not isinstance(given, Mapping):
        raise UmieError(f"labels is {shown(given)}: expected lists of labels by task, e.g. {{'mner': ['person']}}")
    for task, labels in given.items():
        if not isinstance(labels, list | tuple) or not all(isinstance(label, str) and label for label in labels):
            raise UmieError(f"labels of {shown(task)} is {shown(labels)}: expected a list of non-empty strings")
    return {str(task): tuple(labels) for task, labels in given.items()}


def check_span(value: object, kind: str) -> Span:
    """Return two character offsets as a span; raise UmieError, naming ``kind``, if they are invalid."""
    if not isinstance(value, list | tuple) or len(value) != 2 or not type(value[0]) is type(value[1]) is int:
        raise UmieError(f"{kind} is {shown(value)}: expected two character offsets [start, end]")
    start, end = value
    if not 0 <= start < end:
        raise UmieError(f"{kind} is {[start, end]}: expected 0 <= start < end")
    return (start, end)


def _check_index(region: object, owner: str) -> None:
    if not isinstance(region, int) or isinstance(region, bool) or region < 0:
        raise UmieError(f"{owner}: region {shown(region)} must be an index of 0 or more")
