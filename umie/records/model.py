"""Frozen dataclasses of a record and its annotation; spans and boxes are checked on construction."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from umie.errors import UmieError, check_characters, check_share, shown
from umie.files import resolved_inside
from umie.records.offsets import advice
from umie.records.places import (
    LETTERS,
    MEDIA,
    NOWHERE,
    PLACES,
    Medium,
    Places,
    Region,
    Segment,
    Track,
)

if TYPE_CHECKING:
    from PIL.Image import Image

    from umie.media import Clip, Sound

Span: TypeAlias = tuple[int, int]

MAX_IMAGES = 100  # of a record; each is encoded by itself
NO_RELATION = "none"  # the type of an annotated pair without a relation; never counted as a positive


@dataclass(frozen=True)
class Entity:
    """A typed span, the places that show it, or both.

    ``text`` is the covered text (a Record fills it in, or checks it). ``regions``, ``tracks`` and ``segments`` are
    indices of the record's. ``probability``, 0..1, is that of a model; as in all items, ``==`` ignores it.
    """

    type: str
    span: Span | None = None
    text: str = ""
    regions: tuple[int, ...] = ()
    tracks: tuple[int, ...] = ()
    segments: tuple[int, ...] = ()
    probability: float | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        _check_probability(self, "entity")
        _check_places(self, "entity")
        if self.span is not None:
            object.__setattr__(self, "span", check_span(self.span, "entity span"))
        elif not self.places:
            raise UmieError(f"entity {shown(self.type)} needs a span, or a place that shows it")

    @property
    def places(self) -> Places:
        """The places that show the entity."""
        return Places(self.regions, self.tracks, self.segments)


@dataclass(frozen=True)
class Relation:
    """A directed relation from a head to a tail, each a span, places, or both.

    The type ``none`` marks an unrelated pair.
    """

    type: str
    head: Span | None
    tail: Span | None
    head_places: Places = NOWHERE
    tail_places: Places = NOWHERE
    probability: float | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        _check_probability(self, "relation")
        for end in ("head", "tail"):
            span, places = getattr(self, end), Places(*getattr(self, f"{end}_places")).checked(f"relation {end}")
            object.__setattr__(self, f"{end}_places", places)
            if span is not None:
                object.__setattr__(self, end, check_span(span, f"relation {end}"))
            elif not places:
                raise UmieError(f"the {end} of relation {shown(self.type)} needs a span, or a place that shows it")


@dataclass(frozen=True)
class Argument:
    """The filler of an event role: a span of the text, the places that show it, or both."""

    role: str
    span: Span | None = None
    regions: tuple[int, ...] = ()
    tracks: tuple[int, ...] = ()
    segments: tuple[int, ...] = ()
    probability: float | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        _check_probability(self, "argument")
        _check_places(self, f"argument {shown(self.role)}")
        if self.span is not None:
            object.__setattr__(self, "span", check_span(self.span, f"argument {shown(self.role)}"))
        elif not self.places:
            raise UmieError(f"argument {shown(self.role)} needs a span, or a place that shows it")

    @property
    def places(self) -> Places:
        """The places that show the argument."""
        return Places(self.regions, self.tracks, self.segments)


@dataclass(frozen=True)
class Event:
    """An event with its trigger span (None if only media show the event), its arguments and the places of the trigger.

    The trigger is seen in ``regions`` or ``tracks``, or heard in ``segments``.
    """

    type: str
    trigger: Span | None = None
    arguments: tuple[Argument, ...] = ()
    regions: tuple[int, ...] = ()
    tracks: tuple[int, ...] = ()
    segments: tuple[int, ...] = ()
    probability: float | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        _check_probability(self, "event")
        _check_places(self, "event")
        if self.trigger is not None:
            object.__setattr__(self, "trigger", check_span(self.trigger, "event trigger"))
        object.__setattr__(self, "arguments", tuple(self.arguments))

    @property
    def places(self) -> Places:
        """The places of the trigger."""
        return Places(self.regions, self.tracks, self.segments)


def combination_of(text: str, media: Collection[Medium]) -> str:
    """Return the letters of a text, unless it is empty, and of media, e.g. ``T+I``; see ``Record.combination``."""
    letters = (letter for medium, letter in LETTERS.items() if medium in media)
    return "+".join([*(["T"] if text.strip() else []), *letters])


T = TypeVar("T", Entity, Argument)
G = TypeVar("G", Entity, Argument, Event)


@dataclass(frozen=True)
class Record:
    """A text with its images, at most one sound and one video, and the annotation of all.

    Args:
        text: the text; it may be empty only if there is an image, a sound or a video.
        image: file name or path of the first image (stored as a string), a PIL image, the bytes of a file, or None.
        regions: regions of the images.
        entities: typed spans (MNER).
        relations: typed pairs of spans, including unrelated ones (MRE).
        events: events with trigger and arguments (MED, MEAE).
        id: identifies the record in messages and in files of predictions.
        tasks: names of the tasks that this record is annotated for; None means all tasks.
        source: the data set and file that the record comes from.
        license: a note on permitted uses of the source.
        labels: the label schema of each task; None if unknown.
        image_folder: the directory that relative paths of media are in and may not leave; not part of the JSONL line.
        audio: file name or path of the sound (stored as a string), an ``umie.media.Sound``, or None.
        video: file name or path of the video or of a folder of frames, an ``umie.media.Clip``, or None.
        segments: intervals of the sound.
        tracks: regions that move through the video.
        gold: the record as annotated, if the places of this one are proposed: what scores compare with.
        more_images: the images after the first one.

    Raises:
        UmieError: there is neither text nor a medium, a span is outside the text, or a place or its image does not
            exist.
    """

    text: str
    image: str | Path | Image | bytes | None = None
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
    audio: str | Path | Sound | None = None
    video: str | Path | Clip | None = None
    segments: tuple[Segment, ...] = ()
    tracks: tuple[Track, ...] = ()
    gold: Record | None = None
    more_images: tuple[str | Path | Image | bytes, ...] = ()

    def __post_init__(self) -> None:
        if not isinstance(self.text, str):
            raise UmieError(f"text is {shown(self.text)}: expected a string")
        if not self.text.strip() and not self.media:
            raise UmieError("text is empty: every record needs a non-empty text, an image, a sound or a video")
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
        for medium in MEDIA:
            if isinstance(path := getattr(self, medium), Path):
                object.__setattr__(self, medium, str(path))
        object.__setattr__(self, "more_images", _further_images(self.image, self.more_images))
        check_region_images(self.regions, 1 + len(self.more_images))
        object.__setattr__(self, "entities", tuple(self._with_text(entity) for entity in self.entities))
        for _, span in annotated_spans((), self.relations, self.events):
            self.surface(span)
        for owner, places in place_references(self.entities, self.relations, self.events):
            check_places(owner, places, {medium: len(self.places(medium)) for medium in MEDIA})
        if self.gold is not None and (self.gold.text != self.text or self.gold.gold is not None):
            raise UmieError("gold has another text, or a gold of its own: use the record as annotated")

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

    @property
    def annotated(self) -> Record:
        """The record as annotated: ``gold``, or the record itself."""
        return self if self.gold is None else self.gold

    @property
    def media(self) -> tuple[Medium, ...]:
        """The media of the record."""
        return tuple(medium for medium in MEDIA if getattr(self, medium) is not None)

    @property
    def numbered_media(self) -> tuple[tuple[Medium, int], ...]:
        """Each medium with the number of each image, from 0; those of the video and of the sound are 0."""
        return tuple((medium, number) for medium in self.media for number in range(len(self.of(medium))))

    @property
    def combination(self) -> str:
        """The text and the media of the record, e.g. ``T+I``: T text, I image, V video, A audio."""
        return combination_of(self.text, self.media)

    @property
    def images(self) -> tuple[str | Image, ...]:
        """All images, the first one included: file names, or images in memory."""
        return self.of("image")

    def of(self, medium: Medium) -> tuple[Any, ...]:
        """Return the images, the video or the sound: file names, or objects in memory."""
        first = getattr(self, medium)
        return () if first is None else (first, *(self.more_images if medium == "image" else ()))

    def places(self, medium: Medium) -> tuple[Region, ...] | tuple[Segment, ...] | tuple[Track, ...]:
        """Return the regions of the images, the tracks of the video, or the segments of the sound."""
        places: tuple[Region, ...] = getattr(self, PLACES[medium])
        return places

    def places_in(self, medium: Medium, number: int, limit: int | None = None) -> tuple[Any, ...]:
        """Return the places in the image with a number, from 0, or in the video or sound.

        Only the first ``limit`` places of all images count.
        """
        places: tuple[Any, ...] = self.places(medium)[:limit]
        return tuple(place for place in places if getattr(place, "image", 0) == number)

    def place_names(self) -> tuple[str, ...]:
        """Return the names of all places in answers: ``O1`` for the first region, ``V1``, ``S1``, in that order."""
        return Places(*(tuple(range(len(self.places(medium)))) for medium in MEDIA)).names

    def has(self, places: Places) -> bool:
        """Return whether the record has these places."""
        return all(max(places.of(medium), default=-1) < len(self.places(medium)) for medium in MEDIA)

    def regrounded(self, medium: Medium, places: Iterable[Any], moved: Mapping[int, int]) -> Record:
        """Return the record with other places in a medium, and with an annotation that refers to them.

        Args:
            medium: the medium.
            places: its regions, tracks or segments.
            moved: the indices of ``places`` by those of the record's own places. What the annotation says about the
                rest is left out, and so are items that only the rest shows.
        """
        changed: dict[str, Any] = {PLACES[medium]: tuple(places)}
        return replace(self, **changed, **moved_places(self, lambda _, found: found.moved(medium, moved)))

    def ungrounded(self, medium: Medium) -> Record:
        """Return the record without what its annotation says about places in a medium, and without items only there."""
        gold = None if self.gold is None else self.gold.ungrounded(medium)
        return replace(self.regrounded(medium, self.places(medium), {}), gold=gold)

    def _repr_html_(self) -> str:
        """Return the text with colored spans and a table of the items, for notebooks."""
        from umie.records.html import record_html

        return record_html(self)

    def image_path(self) -> Path | None:
        """Return the path of the first image; see ``path``."""
        return self.path("image")

    def path(self, medium: Medium, number: int = 0) -> Path | None:
        """Return the path of an image, by its number, sound or video, or None if there is none or it is in memory.

        Raises:
            UmieError: the path is outside the image folder (through ``..``, a symlink, or an absolute path).
        """
        found = self.resolved(medium, number)
        return found if isinstance(found, Path) else None

    def resolved(self, medium: Medium, number: int = 0) -> Any:
        """Return what to open: a path, or the image, sound or video in memory; None if there is none.

        Raises:
            UmieError: as for ``path``.
        """
        given = self.of(medium)
        found = given[number] if number < len(given) else None
        if not isinstance(found, str):
            return found
        return Path(found) if self.image_folder is None else resolved_inside(self.image_folder, found)

    def _with_text(self, entity: Entity) -> Entity:
        if entity.span is None:
            if entity.text:
                raise UmieError(f"entity text {shown(entity.text)} has no span")
            return entity
        covered = self.surface(entity.span)
        if entity.text not in ("", covered):
            raise UmieError(
                f"entity text {shown(entity.text)} differs from the text of its span {list(entity.span)}, "
                f"{shown(covered)}{advice(self.text, entity.span, entity.text)}"
            )
        return entity if entity.text else replace(entity, text=covered)


def with_places(item: G, places: Places) -> G:
    """Return an entity, an argument or an event with these places as its only ones."""
    return replace(item, regions=places.regions, tracks=places.tracks, segments=places.segments)


def moved_places(record: Record, move: Callable[[Span | None, Places], Places]) -> dict[str, Any]:
    """Return the annotation of a record with other places, as fields for ``replace``.

    ``move`` is called with the span and the places of each entity, end of a relation, trigger and argument. Items that
    then have neither a span nor places are left out.
    """

    def kept(items: Iterable[T]) -> tuple[T, ...]:
        found = ((item, move(item.span, item.places)) for item in items)
        return tuple(with_places(item, places) for item, places in found if item.span is not None or places)

    ends = ((item, move(item.head, item.head_places), move(item.tail, item.tail_places)) for item in record.relations)
    return {
        "entities": kept(record.entities),
        "relations": tuple(
            replace(item, head_places=head, tail_places=tail)
            for item, head, tail in ends
            if (item.head or head) and (item.tail or tail)
        ),
        "events": tuple(
            replace(with_places(event, move(event.trigger, event.places)), arguments=kept(event.arguments))
            for event in record.events
        ),
    }


_ITEMS: Mapping[str, type] = {
    "regions": Region, "segments": Segment, "tracks": Track,
    "entities": Entity, "relations": Relation, "events": Event,
}  # fmt: skip


def annotated_spans(
    entities: Iterable[Entity], relations: Iterable[Relation], events: Iterable[Event]
) -> Iterator[tuple[str, Span]]:
    """Yield every span of an annotation, with the term for it in messages."""
    for entity in entities:
        if entity.span is not None:
            yield "entity", entity.span
    for relation in relations:
        for end, span in (("head", relation.head), ("tail", relation.tail)):
            if span is not None:
                yield f"relation {end}", span
    for event in events:
        if event.trigger is not None:
            yield "event trigger", event.trigger
        for argument in event.arguments:
            if argument.span is not None:
                yield f"argument {shown(argument.role)}", argument.span


def place_references(
    entities: Iterable[Entity], relations: Iterable[Relation], events: Iterable[Event]
) -> Iterator[tuple[str, Places]]:
    """Yield the places that each part of an annotation refers to, with the term for the part in messages."""
    for entity in entities:
        yield f"entity {shown(entity.text or entity.type)}", entity.places
    for relation in relations:
        yield "relation head", relation.head_places
        yield "relation tail", relation.tail_places
    for event in events:
        yield f"event {shown(event.type)}", event.places
        for argument in event.arguments:
            yield f"argument {shown(argument.role)}", argument.places


def referred(record: Record, medium: Medium) -> list[int]:
    """Return the indices of the places in a medium that the annotation of a record refers to, ascending."""
    references = place_references(record.entities, record.relations, record.events)
    return sorted({index for _, places in references for index in places.of(medium)})


def check_places(owner: str, places: Places, numbers: Mapping[Medium, int]) -> None:
    """Raise UmieError, which names ``owner``, if places do not exist; ``numbers`` has how many each medium has."""
    for medium in MEDIA:
        kind, number = PLACES[medium], numbers.get(medium, 0)
        for index in places.of(medium):
            if index >= number:
                raise UmieError(
                    f"{owner} refers to {kind[:-1]} {index}, but the record has {number} {kind} (indices count from 0)"
                )


def check_region_images(regions: Sequence[Region], num_images: int) -> None:
    """Raise UmieError if a region is in an image that does not exist."""
    for index, region in enumerate(regions):
        if region.image >= num_images:
            raise UmieError(
                f"region {index} is in image {region.image}, but the last image of the record is {num_images - 1} "
                "(numbers count from 0)"
            )


def check_num_images(number: int) -> None:
    """Raise UmieError if a record has too many images."""
    if number > MAX_IMAGES:
        raise UmieError(f"the record has {number:,} images; the limit is {MAX_IMAGES}: split the record")


def _further_images(first: object, given: Any) -> tuple[Any, ...]:
    """Return the images after the first one, with paths as strings."""
    if not isinstance(given, Iterable) or isinstance(given, str | bytes | Mapping):
        raise UmieError(f"more_images is {shown(given)}: use a list of images")
    images = tuple(str(image) if isinstance(image, Path) else image for image in given)
    if images and first is None:
        raise UmieError("more_images needs a first image: set image")
    if any(image is None for image in images):
        raise UmieError("more_images holds None: leave it out")
    check_num_images(1 + len(images))
    return images


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


def _check_probability(item: Entity | Relation | Event | Argument, kind: str) -> None:
    if item.probability is not None:
        check_share(f"probability of the {kind}", item.probability)


def _check_places(item: Entity | Event | Argument, owner: str) -> None:
    for kind, indices in zip(PLACES.values(), item.places.checked(owner), strict=True):
        object.__setattr__(item, kind, indices)
