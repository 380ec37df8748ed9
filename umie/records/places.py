"""Places in media: regions of an image, segments of a sound, tracks through a video, and references to them."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias, get_args

from umie.errors import UmieError, shown

if TYPE_CHECKING:
    from numpy import bool_
    from numpy.typing import NDArray

Box: TypeAlias = tuple[float, float, float, float]
Interval: TypeAlias = tuple[float, float]
Medium = Literal["image", "video", "audio"]

MEDIA: tuple[Medium, ...] = get_args(Medium)
"""The media that a text may come with, in the order in which answers name their places."""
PLACES: dict[Medium, str] = {"image": "regions", "video": "tracks", "audio": "segments"}
"""The fields of a record, and of its annotation, that hold the places of each medium."""
PLURALS: dict[Medium, str] = {"image": "images", "video": "videos", "audio": "sounds"}
"""The media in messages."""
A_MEDIUM: dict[Medium, str] = {"image": "an image", "video": "a video", "audio": "a sound"}
"""The media in messages, one of each."""
PREFIXES: dict[Medium, str] = {"image": "O", "video": "V", "audio": "S"}
"""The letters that begin the names of places in answers: ``O1`` is the first region."""
LETTERS: dict[Medium, str] = {"image": "I", "audio": "A", "video": "V"}
"""The letters of media in combinations such as ``T+I+A``, in their order there."""
_NAME = re.compile(f"([{''.join(PREFIXES.values())}])([1-9][0-9]{{0,5}})")
_TOO_LARGE = 1e300  # for the edge of a box: an integer that is no float, or infinity; NaN is not below it either
MAX_MASK_PIXELS = 100_000_000


def place_name(medium: Medium, index: int) -> str:
    """Return the name of a place in answers; ``index`` counts from 0, names from 1."""
    return f"{PREFIXES[medium]}{index + 1}"


class Places(NamedTuple):
    """The places that show something: indices, from 0, of a record's regions, tracks and segments."""

    regions: tuple[int, ...] = ()
    tracks: tuple[int, ...] = ()
    segments: tuple[int, ...] = ()

    @classmethod
    def named(cls, names: Iterable[str]) -> Places | None:
        """Return the places with these names (``O1``, ``S2``), ascending; None if one is no name of a place."""
        found: dict[Medium, set[int]] = {medium: set() for medium in MEDIA}
        for name in names:
            match = _NAME.fullmatch(name)
            if match is None:
                return None
            medium = next(medium for medium, prefix in PREFIXES.items() if prefix == match.group(1))
            found[medium].add(int(match.group(2)) - 1)
        return cls(*(tuple(sorted(found[medium])) for medium in MEDIA))

    def __bool__(self) -> bool:
        """Return whether there is any place."""
        return any(len(indices) for indices in self)

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the places in answers, in the order of MEDIA and of the indices."""
        return tuple(place_name(medium, index) for medium in MEDIA for index in sorted(set(self.of(medium))))

    def of(self, medium: Medium) -> tuple[int, ...]:
        """Return the indices of the places in a medium."""
        indices: tuple[int, ...] = getattr(self, PLACES[medium])
        return indices

    def moved(self, medium: Medium, indices: Mapping[int, int]) -> Places:
        """Return the places with the new ``indices`` of those in a medium, by the old ones; the rest is left out."""
        found = {indices[index] for index in self.of(medium) if index in indices}
        return self._replace(**{PLACES[medium]: tuple(sorted(found))})

    def without(self, medium: Medium) -> Places:
        """Return the places in the other media."""
        return self.moved(medium, {})

    def with_those_of(self, other: Places) -> Places:
        """Return the places of both, ascending."""
        return Places(*(tuple(sorted({*mine, *theirs})) for mine, theirs in zip(self, other, strict=True)))

    def checked(self, owner: str) -> Places:
        """Return the places as tuples; raise UmieError, naming ``owner``, if they are no indices."""
        return Places(*(check_indices(indices, owner, medium) for medium, indices in zip(MEDIA, self, strict=True)))


NOWHERE = Places()


def check_indices(indices: Any, owner: str, medium: Medium) -> tuple[int, ...]:
    """Return indices as a tuple; raise UmieError, naming ``owner``, if they are not integers of 0 or more."""
    if not isinstance(indices, Sequence) or isinstance(indices, str):
        raise UmieError(f"{owner}: {PLACES[medium]} is {shown(indices)}: expected a list of indices")
    for index in indices:
        if not isinstance(index, int) or isinstance(index, bool) or index < 0:
            raise UmieError(f"{owner}: {PLACES[medium][:-1]} {shown(index)} must be an index of 0 or more")
    return tuple(indices)


@dataclass(frozen=True)
class Mask:
    """The pixels of a place, run-length encoded as in COCO.

    Args:
        size: height and width, in pixels.
        counts: the lengths of runs of pixels, column by column from the top left: outside, inside, outside, ...

    Raises:
        UmieError: the runs do not add up to the size, or the size is not positive or too large.
    """

    size: tuple[int, int]
    counts: tuple[int, ...]

    def __post_init__(self) -> None:
        size, counts = tuple(self.size), tuple(self.counts)
        whole = all(isinstance(value, int) and not isinstance(value, bool) for value in (*size, *counts))
        if len(size) != 2 or not whole or min(size) < 1 or size[0] * size[1] > MAX_MASK_PIXELS:
            raise UmieError(f"mask size {shown(list(size))} must be height and width in pixels")
        if min(counts, default=0) < 0 or sum(counts) != size[0] * size[1]:
            raise UmieError(f"the runs of a mask add up to {sum(counts):,}, its size {size[0]} x {size[1]} does not")
        object.__setattr__(self, "size", size)
        object.__setattr__(self, "counts", counts)

    @classmethod
    def of(cls, pixels: NDArray[bool_]) -> Mask:
        """Return the mask of pixels ``[height, width]``."""
        import numpy as np

        flat = np.asarray(pixels, dtype=bool).flatten(order="F")
        changes = np.flatnonzero(flat[1:] != flat[:-1]) + 1
        edges = [0, *changes.tolist(), flat.size]
        counts = [after - before for before, after in pairwise(edges)]
        begin = [0] if flat.size and flat[0] else []
        return cls((int(pixels.shape[0]), int(pixels.shape[1])), (*begin, *counts))

    def pixels(self) -> NDArray[bool_]:
        """Return the pixels as bool ``[height, width]``, True inside."""
        import numpy as np

        inside = np.arange(len(self.counts)) % 2 == 1
        return np.repeat(inside, self.counts).reshape(self.size, order="F")

    @property
    def area(self) -> int:
        """The number of pixels inside."""
        return sum(self.counts[1::2])


@dataclass(frozen=True)
class Region:
    """A region of interest of an image.

    Args:
        box: x1, y1, x2, y2, relative to the image (0..1).
        label: the name assigned by a detector or an annotator.
        mask: the pixels.
        image: the number of the image, from 0, in a record that has several.
    """

    box: Box
    label: str | None = None
    mask: Mask | None = None
    image: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "box", check_box(self.box))
        if not isinstance(self.image, int) or isinstance(self.image, bool) or self.image < 0:
            raise UmieError(f"region image is {shown(self.image)}: use the number of an image, 0 for the first")


@dataclass(frozen=True)
class Segment:
    """An interval of the sound, in seconds; ``label`` is the name assigned by a detector or an annotator."""

    interval: Interval
    label: str | None = None

    def __post_init__(self) -> None:
        interval = tuple(self.interval)
        if len(interval) != 2 or not all(map(_is_number, interval)) or not 0 <= interval[0] < interval[1]:
            raise UmieError(f"interval {shown(list(interval))} must be two times in seconds, 0 <= start < end")
        object.__setattr__(self, "interval", (float(interval[0]), float(interval[1])))


@dataclass(frozen=True)
class Track:
    """A region that moves through the video.

    Args:
        times: seconds, ascending.
        boxes: the box at each time, None where it is not visible.
        label: the name assigned by a detector or an annotator.
    """

    times: tuple[float, ...]
    boxes: tuple[Box | None, ...]
    label: str | None = None

    def __post_init__(self) -> None:
        times, boxes = tuple(self.times), tuple(self.boxes)
        if not times or not all(map(_is_number, times)) or times[0] < 0 or list(times) != sorted(set(times)):
            raise UmieError(f"the times of a track are {shown(list(times))}: expected ascending seconds of 0 or more")
        if len(times) != len(boxes):
            raise UmieError(f"a track has {len(times)} times and {len(boxes)} boxes: use null where it is not visible")
        if all(box is None for box in boxes):
            raise UmieError("a track has no boxes: leave it out")
        object.__setattr__(self, "times", tuple(map(float, times)))
        object.__setattr__(self, "boxes", tuple(None if box is None else check_box(box) for box in boxes))

    @property
    def interval(self) -> Interval:
        """The times of the first and of the last box."""
        visible = [time for time, box in zip(self.times, self.boxes, strict=True) if box is not None]
        return visible[0], visible[-1]

    def box_at(self, time: float) -> Box | None:
        """Return the box at a time in seconds, interpolated between visible boxes; None where it is not visible."""
        before = bisect_right(self.times, time) - 1
        if before < 0:
            return None
        first, start = self.boxes[before], self.times[before]
        if start == time or first is None or before + 1 == len(self.times):
            return first if start == time else None
        last, end = self.boxes[before + 1], self.times[before + 1]
        if last is None:
            return None
        share = (time - start) / (end - start)
        x1, y1, x2, y2 = (one + share * (other - one) for one, other in zip(first, last, strict=True))
        return x1, y1, x2, y2


def check_box(value: Any) -> Box:
    """Return a box as four floats; raise UmieError if it is not inside the image."""
    box = tuple(value)
    if len(box) != 4 or not all(map(_is_number, box)):
        raise UmieError(f"box {shown(list(box))} must be four finite numbers x1, y1, x2, y2")
    x1, y1, x2, y2 = (float(edge) for edge in box)
    if not (0 <= x1 < x2 <= 1 and 0 <= y1 < y2 <= 1):
        raise UmieError(f"box {list(box)} is not inside the image: expected x1 < x2 and y1 < y2, all relative (0..1)")
    return x1, y1, x2, y2


def check_within(medium: Medium, places: Iterable[Any], seconds: float) -> None:
    """Raise UmieError if a segment or a track begins after the end of its sound or video; regions cannot."""
    for place in places if medium != "image" else ():
        start, end = place.interval
        if start >= seconds:
            named = f"segment [{start}, {end}]" if medium == "audio" else f"a track from second {start:.2f}"
            raise UmieError(f"{named} is after the end of the {PLURALS[medium][:-1]}, {seconds:.2f} seconds")


def _is_number(value: Any) -> bool:
    """Return whether a value is a finite number."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < _TOO_LARGE


def described(place: Region | Segment | Track) -> str:
    """Return where a place is: its box, relative to the image, with the number of a further image; or its seconds."""
    if isinstance(place, Region):
        number = f" of image {place.image}" if place.image else ""
        return f"{[round(edge, 3) for edge in place.box]}{number}"
    start, end = place.interval
    return f"{start:.2f}-{end:.2f} s"
