"""What a record is made of: frozen dataclasses that cannot hold a span or box that makes no sense."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from umie.errors import UmieError, check_characters, shown

if TYPE_CHECKING:
    from PIL.Image import Image

Span: TypeAlias = tuple[int, int]
Box: TypeAlias = tuple[float, float, float, float]

NO_RELATION = "none"  # the type of a pair that is asked about and not related; never a positive


@dataclass(frozen=True)
class Region:
    """A region of interest of the image; ``label`` is what a detector or annotator called it."""

    box: Box
    label: str | None = None

    def __post_init__(self) -> None:
        box = tuple(self.box)
        if len(box) != 4 or not all(_is_finite(edge) for edge in box):
            raise UmieError(f"box {shown(list(box))} must be four finite numbers x1, y1, x2, y2")
        x1, y1, x2, y2 = (float(edge) for edge in box)
        if not (0 <= x1 < x2 <= 1 and 0 <= y1 < y2 <= 1):
            raise UmieError(
                f"box {list(box)} is not inside the image: give x1 < x2 and y1 < y2, relative to its size (0..1)"
            )
        object.__setattr__(self, "box", (x1, y1, x2, y2))


@dataclass(frozen=True)
class Entity:
    """A typed span; ``text`` repeats what the span covers (a Record fills it in, or checks it)."""

    type: str
    span: Span
    text: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "span", check_span(self.span, "entity span"))


@dataclass(frozen=True)
class Relation:
    """A directed relation from a head span to a tail span; type ``none`` marks an unrelated pair."""

    type: str
    head: Span
    tail: Span

    def __post_init__(self) -> None:
        object.__setattr__(self, "head", check_span(self.head, "relation head"))
        object.__setattr__(self, "tail", check_span(self.tail, "relation tail"))


@dataclass(frozen=True)
class Argument:
    """What fills a role of an event: a span of the text, or a region of the image by index."""

    role: str
    span: Span | None = None
    region: int | None = None

    def __post_init__(self) -> None:
        if (self.span is None) == (self.region is None):
            raise UmieError(f"argument {self.role!r} needs a span or a region, and not both")
        if self.span is not None:
            object.__setattr__(self, "span", check_span(self.span, f"argument {self.role!r}"))
        elif not isinstance(self.region, int) or isinstance(self.region, bool) or self.region < 0:
            raise UmieError(f"argument {self.role!r}: region {self.region!r} must be an index, 0 or more")


@dataclass(frozen=True)
class Event:
    """An event with its trigger span (None where only the image shows it) and its arguments."""

    type: str
    trigger: Span | None = None
    arguments: tuple[Argument, ...] = ()

    def __post_init__(self) -> None:
        if self.trigger is not None:
            object.__setattr__(self, "trigger", check_span(self.trigger, "event trigger"))
        object.__setattr__(self, "arguments", tuple(self.arguments))


@dataclass(frozen=True)
class Record:
    """One text with at most one image, and what is annotated in them.

    Args:
        text: the text; it may be empty only where there is an image.
        image: file name or path of the image (kept as a string), or a PIL image, or None.
        regions: regions of the image.
        entities: typed spans (MNER).
        relations: typed pairs, unrelated ones too (MRE).
        events: events with trigger and arguments (MED, MEAE).
        id: a name for messages and joins.
        tasks: names of the tasks that this record is annotated for; None means all of them.
        source: the data set and file that the record comes from.
        license: a note on what the source permits.
        labels: the label schema of each task that the annotation draws from; None where it is not known.
        image_folder: folder that a relative ``image`` lies in and may not leave; not part of the JSONL line.

    Raises:
        UmieError: neither text nor image, a span outside the text, a region that does not exist.
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
            raise UmieError(f"text is {shown(self.text)}: give a string")
        if not self.text.strip() and self.image is None:
            raise UmieError("text is empty: every record needs a text or an image")
        check_characters(self.text, "text")
        for name in ("regions", "entities", "relations", "events"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        if self.tasks is not None:
            given: Any = self.tasks
            if isinstance(given, str):
                raise UmieError(f"tasks is {given!r}: give a list of names, [{given!r}]")
            object.__setattr__(self, "tasks", tuple(given))
        if self.labels is not None:
            object.__setattr__(self, "labels", _check_schema(self.labels))
        if isinstance(self.image, Path):
            object.__setattr__(self, "image", str(self.image))
        object.__setattr__(self, "entities", tuple(self._with_text(entity) for entity in self.entities))
        for relation in self.relations:
            self.surface(relation.head)
            self.surface(relation.tail)
        for event in self.events:
            if event.trigger is not None:
                self.surface(event.trigger)
            for argument in event.arguments:
                if argument.span is not None:
                    self.surface(argument.span)
                elif argument.region is not None and argument.region >= len(self.regions):
                    raise UmieError(
                        f"argument {argument.role!r} names region {argument.region}, "
                        f"but the record has {len(self.regions)} (indices count from 0)"
                    )

    def surface(self, span: Span) -> str:
        """Return what ``span`` covers; raise UmieError if it is empty or leaves the text."""
        start, end = span
        if not 0 <= start < end <= len(self.text):
            raise UmieError(f"span [{start}, {end}] is not inside the text of {len(self.text)} characters")
        return self.text[start:end]

    def annotated_for(self, task: str) -> bool:
        """Say whether the record's annotation covers ``task``."""
        return self.tasks is None or task in self.tasks

    def image_path(self) -> Path | None:
        """Return where the image lies, or None if there is none or it is held in memory.

        Raises:
            UmieError: the path leaves the image folder (through ``..``, a symlink, or by being absolute).
        """
        if not isinstance(self.image, str):
            return None
        if self.image_folder is None:
            return Path(self.image)
        folder = Path(self.image_folder).resolve()
        try:
            path = (folder / self.image).resolve()
        except (ValueError, OSError, RuntimeError) as error:  # a NUL character, a loop of links
            raise UmieError(f"image {self.image!r} is no file name: {error}") from error
        if not path.is_relative_to(folder):
            raise UmieError(f"image {self.image!r} leaves the image folder {self.image_folder}")
        return path

    def _with_text(self, entity: Entity) -> Entity:
        covered = self.surface(entity.span)
        if entity.text not in ("", covered):
            raise UmieError(
                f"entity text {entity.text!r} differs from what its span {list(entity.span)} covers, {covered!r}"
            )
        return entity if entity.text else replace(entity, text=covered)


def _check_schema(given: Any) -> dict[str, tuple[str, ...]]:
    schema = {}
    if not isinstance(given, Mapping):
        raise UmieError(f"labels is {shown(given)}: give a list of labels for each task, e.g. {{'mner': ['person']}}")
    for task, labels in given.items():
        if not isinstance(labels, list | tuple) or not all(isinstance(label, str) and label for label in labels):
            raise UmieError(f"labels of {task!r} is {shown(labels)}: give a list of strings")
        schema[str(task)] = tuple(labels)
    return schema


def check_span(value: object, kind: str) -> Span:
    """Return two character offsets as a span; raise UmieError, naming ``kind``, if they are none."""
    if not isinstance(value, list | tuple) or len(value) != 2 or not type(value[0]) is type(value[1]) is int:
        raise UmieError(f"{kind} is {shown(value)}: expected two character offsets [start, end]")
    start, end = value
    if not 0 <= start < end:
        raise UmieError(f"{kind} is {[start, end]}: expected 0 <= start < end")
    return (start, end)


def _is_finite(value: object) -> bool:
    if not isinstance(value, int | float) or isinstance(value, bool):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # an integer too large for a float
        return False
