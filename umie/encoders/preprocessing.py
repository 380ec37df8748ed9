"""From media to tensors: the preprocessors of images, sounds and clips, and batches of their tensors."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from PIL import Image
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from umie.encoders.several_images import alike
from umie.errors import UmieError, shown
from umie.images import ImageSource, open_image
from umie.media import Clip, ClipSource, Sound, SoundSource, open_clip, open_sound
from umie.records import Box, Medium, Region, Segment, Track
from umie.records.places import PLACES, PLURALS, Interval, check_within
from umie.types import NUM_STEPS

WHOLE_IMAGE: Box = (0.0, 0.0, 1.0, 1.0)
MAX_MOVE = 10.0  # widths or heights of a body; more is the same as this
# inputs that say where slots are, in float32 whatever the weights are
GEOMETRY = ("boxes", "spans", "paths", "frame_boxes")


class MediaPreprocessor(ABC):
    """Turns a medium and its places into the inputs of the encoder's forward; holds no weights and can be pickled."""

    medium: ClassVar[Medium]

    def __init__(self, config: Any) -> None:
        self.config = config

    def fingerprint(self) -> str:
        """Return a hash of the options and files that features are read from, for encoders with ``reads_features``."""
        raise NotImplementedError(f"{type(self).__name__} reads no features")

    @abstractmethod
    def no_tensors(self) -> dict[str, Tensor]:
        """Return the encoder-specific inputs of a record without the medium: size 0 along every padded dimension."""

    @abstractmethod
    def one(self, source: Any, places: Sequence[Any] = ()) -> dict[str, Tensor]:
        """Return the tensors of one image, video or sound: those of ``no_slots`` and the encoder's own.

        A source of None gives no slots (V = 0). Places beyond ``max_regions`` are ignored.

        Raises:
            UmieError: the medium cannot be read, or a place is invalid.
        """

    @abstractmethod
    def check(self, source: Any, places: Sequence[Any] = ()) -> None:
        """Raise UmieError where ``one`` would, without computing its result."""

    @abstractmethod
    def identity(self, places: Sequence[Any]) -> list[Any]:
        """Return what features depend on in the places that have slots, as nested lists of numbers."""

    def nothing(self) -> dict[str, Tensor]:
        """Return the tensors of a record without the medium."""
        return {**no_slots(self.medium), **self.no_tensors()}

    def __call__(self, sources: Sequence[Any], places: Sequence[Sequence[Any]] | None = None) -> dict[str, Tensor]:
        """Return the batched, padded tensors of several images, videos or sounds; see ``one``."""
        nouns, kind = PLURALS[self.medium], PLACES[self.medium]
        if isinstance(sources, str | Path) or not isinstance(sources, Sequence):
            raise UmieError(f"{nouns} is a single {nouns[:-1]}: pass a list of {nouns} and a list of {kind} for each")
        places = [()] * len(sources) if places is None else places
        if len(places) != len(sources):
            raise UmieError(f"{len(places)} lists of {kind} for {len(sources)} {nouns}: pass one for each {nouns[:-1]}")
        return collate([self.one(source, own) for source, own in zip(sources, places, strict=True)])

    def _used(self, places: Sequence[Any], kind: type) -> list[Any]:
        """Return the places that have slots, as objects of a kind; tuples are converted."""
        try:
            used = list(places)[: self.config.max_regions]
            return [item if isinstance(item, kind) else kind(item) for item in used]
        except TypeError as error:
            raise UmieError(f"{PLACES[self.medium]} is {shown(places)}: pass a list of them, [] for none") from error


class Preprocessor(MediaPreprocessor):
    """Turns images and regions into the inputs of the encoder's forward; holds no weights and can be pickled."""

    medium = "image"

    @abstractmethod
    def tensors(self, image: Image.Image, boxes: Sequence[Box]) -> dict[str, Tensor]:
        """Return the encoder-specific inputs for an image and its slots (slot 0 is the whole image)."""

    def one(self, image: ImageSource | None, regions: Sequence[Region | Box] = ()) -> dict[str, Tensor]:
        """Return the tensors of one image: ``boxes [V, 4]``, ``visual_mask [V]`` and those of ``tensors``.

        An image of None gives no slots (V = 0). Regions are relative boxes, x1, y1, x2, y2 in 0..1; those beyond
        ``max_regions`` are ignored.

        Raises:
            UmieError: the image cannot be read, or a box is invalid.
        """
        if image is None:
            return self.nothing()
        boxes = self.slots(regions)
        return {
            "boxes": torch.tensor(boxes),
            "visual_mask": torch.ones(len(boxes), dtype=torch.bool),
            **self.tensors(open_image(image), boxes),
        }

    def identity(self, regions: Sequence[Region | Box]) -> list[Any]:
        """Return the boxes of an image's slots."""
        return self.slots(regions)

    def slots(self, regions: Sequence[Region | Box]) -> list[Box]:
        """Return the boxes of an image's slots: the whole image, then its regions, at most ``max_regions``."""
        try:
            used = list(regions)[: self.config.max_regions]
            return [WHOLE_IMAGE, *((item if isinstance(item, Region) else Region(item)).box for item in used)]
        except TypeError as error:
            raise UmieError(
                f"regions is {shown(regions)}: pass a list of boxes [x1, y1, x2, y2] for each image, [] for none"
            ) from error

    def check(self, image: ImageSource, regions: Sequence[Region | Box] = ()) -> None:
        """Raise UmieError where ``one`` would, without computing its result."""
        self.slots(regions)
        open_image(image)


class AudioPreprocessor(MediaPreprocessor):
    """Turns sounds and segments into the inputs of the encoder's forward; holds no weights and can be pickled.

    The config has ``rate``, the samples per second that the encoder takes, and ``max_seconds``, the length of sound
    that it hears.
    """

    medium = "audio"

    @abstractmethod
    def tensors(self, sound: Sound, intervals: Sequence[Interval]) -> dict[str, Tensor]:
        """Return the encoder-specific inputs for a sound and its slots (slot 0 is the whole sound), in seconds."""

    def one(self, source: SoundSource | None, places: Sequence[Segment | Interval] = ()) -> dict[str, Tensor]:
        """Return the tensors of one sound: boxes of the whole, ``spans [V, 2]``, ``visual_mask [V]``, ``tensors``.

        Segments are intervals in seconds.

        Raises:
            UmieError: the sound cannot be read, or a segment is invalid or outside the sound.
        """
        if source is None:
            return self.nothing()
        sound, intervals = self._opened(source, places)
        whole = torch.tensor(intervals[:1]).clamp(min=1e-6)[0, 1]
        return {
            "boxes": torch.tensor([WHOLE_IMAGE] * len(intervals)),
            "visual_mask": torch.ones(len(intervals), dtype=torch.bool),
            "spans": (torch.tensor(intervals) / whole).clamp(0, 1),
            **self.tensors(sound, intervals),
        }

    def check(self, source: SoundSource, places: Sequence[Segment | Interval] = ()) -> None:
        """Raise UmieError where ``one`` would, without computing its result."""
        self._opened(source, places)

    def identity(self, places: Sequence[Segment | Interval]) -> list[Any]:
        """Return the intervals of the segments that have slots, in seconds."""
        return [segment.interval for segment in self._used(places, Segment)]

    def _opened(self, source: SoundSource, places: Sequence[Segment | Interval]) -> tuple[Sound, list[Interval]]:
        """Return the sound that is heard, and the intervals of its slots."""
        intervals: list[Interval] = self.identity(places)
        sound = open_sound(source, self.config.rate)
        check_within("audio", self._used(places, Segment), sound.seconds)
        heard = min(sound.seconds, self.config.max_seconds)
        return sound, [(0.0, heard), *intervals]


class VideoPreprocessor(MediaPreprocessor):
    """Turns clips and tracks into the inputs of the encoder's forward; holds no weights and can be pickled.

    The config has ``num_frames``, unless the property is overridden.
    """

    medium = "video"

    @property
    def num_frames(self) -> int:
        """The most frames of a clip that the encoder sees."""
        return int(self.config.num_frames)

    @abstractmethod
    def tensors(self, clip: Clip, tracks: Sequence[Track | None]) -> dict[str, Tensor]:
        """Return the encoder-specific inputs for a clip and its slots (slot 0, None, is the whole clip)."""

    def one(self, source: ClipSource | None, places: Sequence[Track] = ()) -> dict[str, Tensor]:
        """Return the tensors of one clip: ``visual_mask [V]``, ``boxes [V, 4]``, ``spans``, ``paths``, ``tensors``.

        Raises:
            UmieError: the clip cannot be read, or a track is invalid or outside the clip.
        """
        if source is None:
            return self.nothing()
        clip, tracks = self._opened(source, places)
        boxes, spans, paths = [WHOLE_IMAGE], [(0.0, 1.0)], [torch.zeros(NUM_STEPS, 4)]
        for track in tracks:
            steps = steps_of(track)
            boxes.append(steps[NUM_STEPS // 2])
            start, end = track.interval
            spans.append((min(start / clip.seconds, 1.0), min(end / clip.seconds, 1.0)))
            paths.append(_path_of(steps))
        return {
            "boxes": torch.tensor(boxes),
            "visual_mask": torch.ones(len(boxes), dtype=torch.bool),
            "spans": torch.tensor(spans),
            "paths": torch.stack(paths),
            **self.tensors(clip, [None, *tracks]),
        }

    def check(self, source: ClipSource, places: Sequence[Track] = ()) -> None:
        """Raise UmieError where ``one`` would, without computing its result."""
        self._opened(source, places)

    def identity(self, places: Sequence[Track]) -> list[Any]:
        """Return the times, in seconds, and the boxes of the tracks that have slots."""
        return [(track.times, track.boxes) for track in self._tracks(places)]

    def _tracks(self, places: Sequence[Track]) -> list[Track]:
        tracks = list(places)[: self.config.max_regions]
        for track in tracks:
            if not isinstance(track, Track):
                raise UmieError(f"tracks holds {shown(track)}: pass umie.Track objects, [] for none")
        return tracks

    def _opened(self, source: ClipSource, places: Sequence[Track]) -> tuple[Clip, list[Track]]:
        tracks = self._tracks(places)
        clip = open_clip(source, self.num_frames)
        check_within("video", tracks, clip.seconds)
        return clip, tracks


def steps_of(track: Track) -> list[Box]:
    """Return the boxes of a track at NUM_STEPS equidistant times; where it is not visible, the one before."""
    start, end = track.interval
    boxes: list[Box] = []
    for step in range(NUM_STEPS):
        box = track.box_at(start + (end - start) * step / (NUM_STEPS - 1))
        boxes.append(box or boxes[-1])
    return boxes


def boxes_at(track: Track, times: Sequence[float]) -> list[Box | None]:
    """Return the box of a track at each time, None where it is not visible; there is one at least.

    A track that is visible at none of the times is at the one that is nearest to its middle.
    """
    boxes = [track.box_at(time) for time in times]
    if not any(boxes):
        middle = sum(track.interval) / 2
        boxes[min(range(len(times)), key=lambda step: abs(times[step] - middle))] = steps_of(track)[NUM_STEPS // 2]
    return boxes


def _path_of(steps: Sequence[Box]) -> Tensor:
    """Return how far the edges of a box have moved, in widths and heights of the first box, ``[P, 4]``.

    In these units a step is as large as its body, not as the frame: small bodies that move little are seen to move.
    """
    boxes = torch.tensor(steps)
    size = (boxes[0, 2:] - boxes[0, :2]).clamp(min=1e-3).repeat(2)
    return ((boxes - boxes[0]) / size).clamp(-MAX_MOVE, MAX_MOVE)


def no_slots(medium: Medium = "image") -> dict[str, Tensor]:
    """Return the boxes and the mask of a record without an image, or what sounds and clips have: no slots."""
    slots = {"boxes": torch.zeros(0, 4), "visual_mask": torch.zeros(0, dtype=torch.bool)}
    if medium != "image":
        slots["spans"] = torch.zeros(0, 2)
    if medium == "video":
        slots["paths"] = torch.zeros(0, NUM_STEPS, 4)
    return slots


def collate(items: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Stack the tensors of several records, padded with zeros (False) to the maximum size of each dimension."""
    items = alike(items)
    return {name: pad_stack([item[name] for item in items]) for name in items[0]}


def pad_stack(tensors: Sequence[Tensor], value: float = 0) -> Tensor:
    """Stack tensors of equal rank, padded with ``value`` at the end of each dimension."""
    shapes = [tensor.shape for tensor in tensors]
    is_plain = shapes[0] and all(tensor.dtype == tensors[0].dtype for tensor in tensors)
    if is_plain and all(shape == shapes[0] for shape in shapes):
        return torch.stack(list(tensors))
    if is_plain and all(shape and shape[1:] == shapes[0][1:] for shape in shapes):  # faster than row by row
        return pad_sequence(list(tensors), batch_first=True, padding_value=value)
    shape = [max(sizes) for sizes in zip(*shapes, strict=True)]
    stacked = tensors[0].new_full((len(tensors), *shape), value)
    for row, tensor in zip(stacked, tensors, strict=True):
        row[tuple(slice(size) for size in tensor.shape)] = tensor
    return stacked
