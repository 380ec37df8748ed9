"""Extraction: the items found in a text and its media, with warnings, gates and the raw answers."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from html import escape
from typing import Any, NamedTuple, Protocol, TypeAlias

from umie.records import (
    MEDIA,
    Argument,
    Box,
    Entity,
    Event,
    Medium,
    Places,
    Record,
    Region,
    Relation,
    Segment,
    Track,
    is_no_relation,
    record_to_json,
)
from umie.records.html import lines_of, record_html, said
from umie.tasks import task_class

PixelBox: TypeAlias = tuple[int, int, int, int]

NOTICES = {
    "truncated": "the text was truncated to the model's input length",
    "windows": "the text is longer than the model's input, and was read in windows",
    "unwritable": "the tokenizer cannot write all characters, so some spans cannot be told apart",
    "image": "the image was not used",
    "audio": "the sound was not used",
    "video": "the video was not used",
    "regions": "some regions were not used",
    "segments": "some segments were not used",
    "tracks": "some tracks were not used",
    "places": "the model was trained with places in the media, such as regions, and got none",
    "labels": "the checkpoint was not trained on some of the labels",
    "no relation": "some relation labels look like 'none' under another name; see --no-relation",
    "pairs": "some pairs of entities were not asked about",
    "dropped": "invalid items of the output were dropped",
}


class Notice(NamedTuple):
    """A warning about a record: its kind, a key of ``NOTICES``, and the message."""

    kind: str
    message: str


class Extracts(Protocol):
    """What explanations and attention need of an ``Extractor``, which has methods for both."""

    model: Any
    processor: Any
    missing_images: str
    urls: str

    @property
    def extract_many(self) -> Callable[..., Iterator[Extraction]]:
        """Yields the extraction of each record."""


@dataclass(frozen=True)
class ExtractionAnswer:
    """The answer to one query."""

    task: str
    target: Any  # the pair or the event that the query is about; None for a query about the whole record
    output: str  # the generated string
    gate: float | None = None  # the mean gate of the fusion; None without media, or if the fusion has no gate
    is_truncated: bool = False  # whether the text was truncated
    dropped: int = 0  # the number of items in the output that are malformed, or not in the text or image


@dataclass(frozen=True)
class Extraction:
    """The items found in one text and its media.

    Args:
        record: the items as a record: text, media and their places, the tasks asked, entities, relations (type ``none``
            for a pair that was asked about and is not related), events.
        warnings: warnings about this extraction.
        image_size: width and height of the first image in pixels, as displayed; None unless a region shows an item and
            the image can be read.
        answers: the answers to all queries, in the order of asking; ignored by ``==``, because gates are rounded.
        more_image_sizes: the same of ``record.more_images``.
        video_size: the same of the video; None unless a track shows an item.
    """

    record: Record
    warnings: tuple[Notice, ...] = ()
    image_size: tuple[int, int] | None = None
    answers: tuple[ExtractionAnswer, ...] = field(default=(), compare=False)
    more_image_sizes: tuple[tuple[int, int] | None, ...] = ()
    video_size: tuple[int, int] | None = None

    def _repr_html_(self) -> str:
        """Return the text with colored spans and a table of the items with their probabilities, for notebooks."""
        notes = "".join(f"<p><small>{escape(one.message)}</small></p>" for one in self.warnings)
        return record_html(self.record, is_no_relation) + notes

    def __str__(self) -> str:
        """Return the text, and a line for each item: its label, words and places, characters and probability."""
        lines = []
        for one in lines_of(self.record, is_no_relation):
            spans = [f"{span[0]}-{span[1]}" for span, _ in one.parts if span is not None]
            words = " -> ".join(said(self.record, *part) for part in one.parts)
            probability = "" if one.probability is None else f"p={one.probability:.2f}"
            lines.append("  ".join(filter(None, (one.kind, one.label, words, ", ".join(spans), probability))))
        return "\n".join([self.text, *(f"  {line}" for line in lines or ["nothing was found"])])

    @property
    def text(self) -> str:
        """The text; every span is a pair of character offsets into it."""
        return self.record.text

    @property
    def entities(self) -> tuple[Entity, ...]:
        """Typed spans (MNER)."""
        return self.record.entities

    @property
    def relations(self) -> tuple[Relation, ...]:
        """The related pairs (MRE); ``record.relations`` also has those of type ``none``."""
        return tuple(item for item in self.record.relations if not is_no_relation(item.type))

    @property
    def events(self) -> tuple[Event, ...]:
        """Events (MED) with their arguments (MEAE)."""
        return self.record.events

    @property
    def gate(self) -> dict[str, float | None]:
        """The mean gate over the queries of each task; None without a gate, or without media that the model uses."""
        gates: dict[str, list[float]] = {}
        for answer in self.answers:
            gates.setdefault(answer.task, []).extend([] if answer.gate is None else [answer.gate])
        return {task: sum(values) / len(values) if values else None for task, values in gates.items()}

    def region(self, argument: Argument) -> Region | None:
        """Return the first region of an argument, its box relative to the image (0..1), or None if it has none."""
        return self.record.regions[argument.regions[0]] if argument.regions else None

    def pixel_box(self, argument: Argument) -> PixelBox | None:
        """Return the box of an argument in pixels, or None if it has no region or the size of the image is unknown."""
        region = self.region(argument)
        return None if region is None else self.region_pixels(region)

    def regions(self, item: Entity | Event | Argument) -> tuple[Region, ...]:
        """Return the regions that show an entity, a trigger or an argument; none if the task is not ``grounded``."""
        return tuple(self.record.regions[index] for index in item.regions)

    def segments(self, item: Entity | Event | Argument) -> tuple[Segment, ...]:
        """Return the segments in which an entity, a trigger or an argument is heard, with their seconds."""
        return tuple(self.record.segments[index] for index in item.segments)

    def tracks(self, item: Entity | Event | Argument) -> tuple[Track, ...]:
        """Return the tracks that show an entity, a trigger or an argument; see also ``track_pixels``."""
        return tuple(self.record.tracks[index] for index in item.tracks)

    def region_pixels(self, region: Region) -> PixelBox | None:
        """Return the box of a region in pixels, or None if the size of its image is unknown."""
        sizes = (self.image_size, *self.more_image_sizes)
        return _pixels(region.box, sizes[region.image] if region.image < len(sizes) else None)

    def track_pixels(self, track: Track) -> tuple[PixelBox | None, ...]:
        """Return the boxes of a track in pixels at its times; None where it is not visible, or without a video size."""
        return tuple(None if box is None else _pixels(box, self.video_size) for box in track.boxes)

    def to_json(self) -> dict[str, Any]:
        """Return plain values: the JSONL form of the record, with places, gates and warnings.

        Of the places that show an item, there are ``boxes`` of regions, relative and in ``pixels`` (of the only region
        of an argument ``box``), ``seconds`` of segments, and ``paths`` of tracks with their ``times`` and ``pixels``.
        """
        record = with_named_media(self.record, lambda medium: "in memory")
        data: dict[str, Any] = json.loads(record_to_json(record))
        kinds = {task_class(name).kind.replace("arguments", "events") for name in record.tasks or ()}
        for kind in ("entities", "relations", "events"):
            if kind in kinds:
                data.setdefault(kind, [])  # that nothing was found is an answer, too
        for written, entity in zip(data.get("entities", ()), record.entities, strict=True):
            written |= self._shown(entity.places)
        for written, relation in zip(data.get("relations", ()), record.relations, strict=True):
            written["head"] |= self._shown(relation.head_places)
            written["tail"] |= self._shown(relation.tail_places)
        for written, event in zip(data.get("events", ()), record.events, strict=True):
            if event.places:
                written["trigger"] |= self._shown(event.places)
            for argument, item in zip(written["arguments"], event.arguments, strict=True):
                argument |= self._shown(item.places)
                if "region" in argument:
                    argument["box"], argument["pixels"] = argument.pop("boxes")[0], argument["pixels"][0]
        return {**data, "gate": self.gate, "warnings": [notice._asdict() for notice in self.warnings]}

    def _shown(self, places: Places) -> dict[str, Any]:
        """Return where places are, as plain values."""
        record, found = self.record, dict[str, Any]()
        if places.regions:
            regions = [record.regions[index] for index in places.regions]
            found["boxes"] = [list(region.box) for region in regions]
            found["pixels"] = [_listed(self.region_pixels(region)) for region in regions]
        if places.segments:
            found["seconds"] = [list(record.segments[index].interval) for index in places.segments]
        if places.tracks:
            found["paths"] = [
                {"times": list(track.times), "pixels": list(map(_listed, self.track_pixels(track)))}
                for track in (record.tracks[index] for index in places.tracks)
            ]
        return found


def with_named_media(record: Record, name: Callable[[Medium], str]) -> Record:
    """Return a record in which what is in memory, such as an image without a file, has a name."""
    names = {medium: [one if isinstance(one, str) else name(medium) for one in record.of(medium)] for medium in MEDIA}
    first: dict[str, Any] = {medium: names[medium][0] for medium in record.media}
    return replace(record, **first, more_images=tuple(names["image"][1:]))


def _pixels(box: Box, size: tuple[int, int] | None) -> PixelBox | None:
    if size is None:
        return None
    width, height = size
    x1, y1, x2, y2 = (round(edge * side) for edge, side in zip(box, (width, height) * 2, strict=True))
    x1, y1 = min(x1, width - 1), min(y1, height - 1)
    return x1, y1, max(x2, x1 + 1), max(y2, y1 + 1)  # at least one pixel wide and high


def _listed(box: PixelBox | None) -> list[int] | None:
    return None if box is None else list(box)
