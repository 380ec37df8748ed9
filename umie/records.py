"""Records: a text with a picture and its annotation, and their JSONL form (one line, one record).

Spans are character offsets ``(start, end)`` into the text, end excluded. Boxes are ``(x1, y1, x2, y2)``
relative to the picture, 0..1, origin at the top left. Region indices count from 0: ``O1`` names
``regions[0]``.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from umie.errors import UmieError, at, check_characters, check_keys, shown
from umie.files import atomic_write, read_lines

if TYPE_CHECKING:
    from PIL.Image import Image

Span: TypeAlias = tuple[int, int]
Box: TypeAlias = tuple[float, float, float, float]

NO_RELATION = "none"  # the type of a pair that is asked about and not related; never a positive


@dataclass(frozen=True)
class Region:
    """A region of interest of the picture; ``label`` is what a detector or annotator called it."""

    box: Box
    label: str | None = None

    def __post_init__(self) -> None:
        box = tuple(self.box)
        if len(box) != 4 or not all(_is_finite(edge) for edge in box):
            raise UmieError(f"box {shown(list(box))} must be four finite numbers x1, y1, x2, y2")
        x1, y1, x2, y2 = (float(edge) for edge in box)
        if not (0 <= x1 < x2 <= 1 and 0 <= y1 < y2 <= 1):
            raise UmieError(
                f"box {list(box)} is not inside the picture: give x1 < x2 and y1 < y2, relative to its size (0..1)"
            )
        object.__setattr__(self, "box", (x1, y1, x2, y2))


@dataclass(frozen=True)
class Entity:
    """A typed span; ``text`` repeats what the span covers (a Record fills it in, or checks it)."""

    type: str
    span: Span
    text: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "span", _span(self.span, "entity span"))


@dataclass(frozen=True)
class Relation:
    """A directed relation from a head span to a tail span; type ``none`` marks an unrelated pair."""

    type: str
    head: Span
    tail: Span

    def __post_init__(self) -> None:
        object.__setattr__(self, "head", _span(self.head, "relation head"))
        object.__setattr__(self, "tail", _span(self.tail, "relation tail"))


@dataclass(frozen=True)
class Argument:
    """What fills a role of an event: a span of the text, or a region of the picture by index."""

    role: str
    span: Span | None = None
    region: int | None = None

    def __post_init__(self) -> None:
        if (self.span is None) == (self.region is None):
            raise UmieError(f"argument {self.role!r} needs a span or a region, and not both")
        if self.span is not None:
            object.__setattr__(self, "span", _span(self.span, f"argument {self.role!r}"))
        elif not isinstance(self.region, int) or isinstance(self.region, bool) or self.region < 0:
            raise UmieError(f"argument {self.role!r}: region {self.region!r} must be an index, 0 or more")


@dataclass(frozen=True)
class Event:
    """An event with its trigger span (None where only the picture shows it) and its arguments."""

    type: str
    trigger: Span | None = None
    arguments: tuple[Argument, ...] = ()

    def __post_init__(self) -> None:
        if self.trigger is not None:
            object.__setattr__(self, "trigger", _span(self.trigger, "event trigger"))
        object.__setattr__(self, "arguments", tuple(self.arguments))


@dataclass(frozen=True)
class Record:
    """One text with at most one picture, and what is annotated in them.

    Args:
        text: the text, not empty.
        image: file name or path of the picture (kept as a string), or a PIL image, or None.
        regions: regions of the picture.
        entities: typed spans (MNER).
        relations: typed pairs, unrelated ones too (MRE).
        events: events with trigger and arguments (MED, MEAE).
        id: a name for messages and joins.
        tasks: names of the tasks that this record is annotated for; None means all of them.
        image_folder: folder that a relative ``image`` lies in and may not leave; not part of the JSONL line.

    Raises:
        UmieError: an empty text, a span outside the text, a region that does not exist.
    """

    text: str
    image: str | Path | Image | None = None
    regions: tuple[Region, ...] = ()
    entities: tuple[Entity, ...] = ()
    relations: tuple[Relation, ...] = ()
    events: tuple[Event, ...] = ()
    id: str | None = None
    tasks: tuple[str, ...] | None = None
    image_folder: str | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        if not isinstance(self.text, str) or not self.text.strip():
            raise UmieError("text is empty: every record needs a text")
        check_characters(self.text, "text")
        for name in ("regions", "entities", "relations", "events"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        if self.tasks is not None:
            given: Any = self.tasks
            if isinstance(given, str):
                raise UmieError(f"tasks is {given!r}: give a list of names, [{given!r}]")
            object.__setattr__(self, "tasks", tuple(given))
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
        """Return where the picture lies, or None if there is none or it is held in memory.

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


def read_jsonl(path: str | Path, images: str | Path | None = None) -> Iterator[Record]:
    """Yield the records of a JSONL file, one a line; blank lines are passed over.

    Args:
        path: the file.
        images: the folder of the pictures; by default the folder of the file.

    Raises:
        UmieError: a line cannot be read as a record; the message names file, line and value.
    """
    for _, record in read_numbered_jsonl(path, images):
        yield record


def read_numbered_jsonl(path: str | Path, images: str | Path | None = None) -> Iterator[tuple[int, Record]]:
    """Yield the records of a JSONL file as ``read_jsonl`` does, each with the number of its line."""
    folder = str(images if images is not None else Path(path).parent)
    for number, line in read_lines(Path(path)):
        if line.strip():
            with at(f"{path}:{number}"):
                record = replace(record_from_json(line), image_folder=folder)
            yield number, record


def write_jsonl(path: str | Path, records: Iterable[Record]) -> None:
    """Write records as JSONL, atomically: the file appears whole, or not at all.

    Raises:
        UmieError: a record holds its picture in memory; save it and give its file name instead.
    """
    with atomic_write(path) as file:
        for record in records:
            file.write(record_to_json(record) + "\n")


def record_from_json(line: str) -> Record:
    """Return the record of one JSONL line.

    Raises:
        UmieError: not a JSON object, an unknown key, or a value that does not fit.
    """
    try:
        data = json.loads(line)
    except (ValueError, RecursionError) as error:  # not JSON, or a number of too many digits
        raise UmieError(f"not valid JSON: {error}") from error
    data = _object(data, "record", ("text", "image", "regions", "entities", "relations", "events", "id", "tasks"))
    text = data.get("text")
    if not isinstance(text, str) or not text.strip():
        raise UmieError(f"text is {text!r}: every record needs a text that is not empty")
    for key, value in data.items():
        check_characters(json.dumps(value, ensure_ascii=False), key)
    image = data.get("image")
    if image is not None and not isinstance(image, str):
        raise UmieError(f"image is {image!r}: give a file name, or null for a text without a picture")
    identifier = data.get("id")
    return Record(
        text=text,
        image=image,
        regions=tuple(_region(item) for item in _list(data, "regions")),
        entities=tuple(_entity(item, text) for item in _list(data, "entities")),
        relations=tuple(_relation(item, text) for item in _list(data, "relations")),
        events=tuple(_event(item, text) for item in _list(data, "events")),
        id=None if identifier is None else str(identifier),
        tasks=None
        if data.get("tasks") is None
        else tuple(_string_item(item, "tasks") for item in _list(data, "tasks")),
    )


def record_to_json(record: Record) -> str:
    """Return the JSONL line of a record; what is empty is left out."""
    if record.image is not None and not isinstance(record.image, str):
        raise UmieError("this record holds its picture in memory; save the picture and give its file name")

    def mention(span: Span) -> dict[str, Any]:
        return {"span": list(span), "text": record.surface(span)}

    def argument(item: Argument) -> dict[str, Any]:
        filler = {"region": item.region} if item.span is None else mention(item.span)
        return {"role": item.role, **filler}

    data: dict[str, Any] = {
        "id": record.id,
        "text": record.text,
        "image": record.image,
        "regions": [
            {"box": list(region.box), **({"label": region.label} if region.label is not None else {})}
            for region in record.regions
        ],
        "entities": [{"type": entity.type, **mention(entity.span)} for entity in record.entities],
        "relations": [
            {"type": item.type, "head": mention(item.head), "tail": mention(item.tail)} for item in record.relations
        ],
        "events": [
            {
                "type": event.type,
                "trigger": None if event.trigger is None else mention(event.trigger),
                "arguments": [argument(item) for item in event.arguments],
            }
            for event in record.events
        ],
        "tasks": None if record.tasks is None else list(record.tasks),
    }
    kept = {key: value for key, value in data.items() if value not in (None, []) or (key == "tasks" and value == [])}
    line = json.dumps(kept, ensure_ascii=False)
    check_characters(line, "record")
    return line


def _object(value: object, kind: str, keys: Sequence[str]) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise UmieError(f"{kind} is {shown(value)}: expected a JSON object")
    check_keys(f"{kind} key", value, keys)
    return value


def _list(data: Mapping[str, Any], key: str) -> list[Any]:
    value = data.get(key)
    if value is None:
        return []
    if not isinstance(value, list):
        raise UmieError(f"{key} is {shown(value)}: expected a list")
    return value


def _string(data: Mapping[str, Any], key: str, kind: str) -> str:
    value = data.get(key)
    if not isinstance(value, str) or not value:
        raise UmieError(f"{kind} has {key} {shown(value)}: expected a string that is not empty")
    return value


def _string_item(value: object, kind: str) -> str:
    if not isinstance(value, str):
        raise UmieError(f"{kind} holds {shown(value)}: expected a string")
    return value


def _mention(value: object, text: str, kind: str) -> Span:
    """Read a span given as ``[start, end]`` or as an object with ``span`` and, to be checked, ``text``."""
    if isinstance(value, dict):
        _object(value, kind, ("span", "text", "type"))
        span = _span(value.get("span"), kind)
        covered = text[span[0] : span[1]]
        if value.get("text") not in (None, covered):
            raise UmieError(
                f"{kind} text {shown(value['text'])} differs from what its span {list(span)} covers, {covered!r}"
            )
        return span
    return _span(value, kind)


def _region(value: object) -> Region:
    data = _object(value, "region", ("box", "label"))
    box = data.get("box")
    if not isinstance(box, list):
        raise UmieError(f"region box is {shown(box)}: expected [x1, y1, x2, y2], relative to the picture (0..1)")
    label = data.get("label")
    return Region(box=tuple(box), label=None if label is None else _string_item(label, "region label"))


def _entity(value: object, text: str) -> Entity:
    data = _object(value, "entity", ("type", "span", "text"))
    span = _mention({key: data.get(key) for key in ("span", "text")}, text, "entity")
    return Entity(_string(data, "type", "entity"), span)


def _relation(value: object, text: str) -> Relation:
    data = _object(value, "relation", ("type", "head", "tail"))
    ends = (_mention(data.get(end), text, f"relation {end}") for end in ("head", "tail"))
    return Relation(_string(data, "type", "relation"), *ends)


def _event(value: object, text: str) -> Event:
    data = _object(value, "event", ("type", "trigger", "arguments"))
    trigger = data.get("trigger")
    arguments = []
    for item in _list(data, "arguments"):
        filler = _object(item, "argument", ("role", "span", "region", "text"))
        role = _string(filler, "role", "argument")
        span = None
        if filler.get("span") is not None:
            span = _mention({key: filler.get(key) for key in ("span", "text")}, text, f"argument {role!r}")
        arguments.append(Argument(role, span, filler.get("region")))
    return Event(
        _string(data, "type", "event"),
        None if trigger is None else _mention(trigger, text, "event trigger"),
        tuple(arguments),
    )


def _span(value: object, kind: str) -> Span:
    if (
        not isinstance(value, list | tuple)
        or len(value) != 2
        or not all(isinstance(offset, int) and not isinstance(offset, bool) for offset in value)
    ):
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
