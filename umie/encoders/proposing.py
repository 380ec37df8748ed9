"""What proposers of regions, segments and tracks share: records with places; selection by IoU; places from files."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import zip_longest
from pathlib import Path
from typing import Any, ClassVar, Generic, Protocol, TypeVar

from umie.encoders.base import WeightsOption
from umie.errors import UmieError, check_share, check_whole
from umie.records import Medium, Record, Segment, Track
from umie.records.model import referred
from umie.records.overlap import extent, nearest_places, place_iou
from umie.records.places import PLACES

RECENT = 256  # media whose candidates are kept during fill, since some data sets use one in several records

Found = TypeVar("Found")
P = TypeVar("P", Segment, Track)


class AnnotationError(UmieError):
    """An annotation cannot be read; the image, sound or video itself may be fine."""


@dataclass(frozen=True, kw_only=True)
class ProposerConfig(WeightsOption):
    """Options that every proposer has.

    Args:
        top: maximum number of regions per image, segments per sound or tracks per video (the paper uses 36 regions).
        nms: intersection over union above which the lower-scoring of two places is removed; 1 removes only duplicates.
        min_score: places with lower scores are removed.
    """

    top: int = 36
    nms: float = 0.5
    min_score: float = 0.0

    def __post_init__(self) -> None:
        check_whole("top", self.top, 1)
        check_share("nms", self.nms)
        check_share("min_score", self.min_score)


class FindsPlaces(Protocol):
    """What ``annotate`` needs: a proposer, or a grounder."""

    medium: ClassVar[Medium]

    def filled(
        self, record: Record, recent: dict[object, Any], place: int, *, replaces: bool = False
    ) -> tuple[Record, dict[int, UmieError]]:
        """Return a record with new places, and the errors by the number of the image."""

    def check(self) -> None:
        """Raise UmieError if the places so far cannot be those of the media; called after the last record."""


class MediumProposer(ABC, Generic[Found]):
    """Finds places in one medium; subclasses implement ``candidates`` and their selection, ``_chosen``.

    Attributes:
        counts: number of places dropped so far, by reason.
        num_found: number of places so far, dropped ones included.
        num_clipped: number of places so far that extend beyond the medium.
    """

    Config: ClassVar[type[ProposerConfig]] = ProposerConfig
    medium: ClassVar[Medium]
    reads_text: ClassVar[bool] = False  # whether the candidates depend on the text

    def __init__(self, config: Any) -> None:
        self.config = config
        self.counts: Counter[str] = Counter()
        self.num_found = self.num_clipped = 0

    @abstractmethod
    def candidates(self, source: Any, text: str | None, name: str | None) -> Found:
        """Return the places found in a medium, before selection; ``name`` is its file name, if it has one.

        Raises:
            UmieError: the medium, or its annotation (AnnotationError), cannot be read.
        """

    @abstractmethod
    def _chosen(self, found: Found, own: Sequence[Any]) -> Sequence[Any]:
        """Return the best places, at most ``top`` with a record's own ones, without those that overlap them."""

    def check(self) -> None:  # most proposers have nothing to check
        """Raise UmieError if the proposals so far cannot be those of the media; called after the last one."""

    def fill(
        self, records: Iterable[Record], on_error: Callable[[UmieError], None] | None = None, *, replaces: bool = False
    ) -> Iterator[Record]:
        """Yield the records with proposals added after their own places, or in place of them.

        A record's own places keep their indices, since its annotation refers to them. Proposals that overlap own
        places, or exceed ``top`` places in total, are removed. Own places beyond ``top`` are cut, except up to the last
        one that the annotation refers to. Of several images, ``top`` is for each; the best region of each image comes
        first, then the second best of each, so that an encoder's ``max_regions`` keeps the best. With ``replaces``, the
        proposals are the only places, the annotation refers to those that overlap the annotated ones by IoU >= 0.5,
        and the record as it was is kept as ``gold``.

        Records are read lazily; one without the medium is yielded unchanged. If a record's medium or annotation
        (AnnotationError) cannot be read or is outside its directory, ``on_error`` is called with the UmieError, and
        there are no proposals. Without ``on_error`` the error is raised.

        Raises:
            UmieError: places of a record were replaced before.
        """
        recent: dict[object, Found] = {}  # of the last media
        for number, record in enumerate(records, start=1):
            filled, errors = self.filled(record, recent, number, replaces=replaces)
            for error in errors.values():
                if on_error is None:
                    raise error
                on_error(error)
            yield filled

    def filled(
        self, record: Record, recent: dict[object, Found], place: int, *, replaces: bool = False
    ) -> tuple[Record, dict[int, UmieError]]:
        """Return a record with proposals, see ``fill``, and the errors by the number of the image, from 0.

        Args:
            record: the record.
            recent: what was found in the last media, which is updated.
            place: the number of the record, for messages about one without an id.
            replaces: as in ``fill``.
        """
        own = () if replaces else self._own(record)
        errors: dict[int, UmieError] = {}
        found: list[Sequence[Any]] = []
        for number in range(len(record.of(self.medium))):
            others = [one for one in own if getattr(one, "image", 0) == number]
            try:
                if len(others) < self.config.top:
                    chosen = self._chosen(self._recalled(record, number, recent), others)
                    found.append([replace(one, image=number) for one in chosen] if number else chosen)
            except UmieError as error:
                kind = AnnotationError if isinstance(error, AnnotationError) else UmieError
                errors[number] = kind(f"record {record.id or place}: {error}")
                errors[number].__cause__ = error
        best_first = [one for ranked in zip_longest(*found) for one in ranked if one is not None]
        if record.of(self.medium) and replaces:
            return self._replaced(record, best_first), errors
        places: dict[str, Any] = {PLACES[self.medium]: (*own, *best_first)}
        return (replace(record, **places) if record.of(self.medium) else record), errors

    def _own(self, record: Record) -> Sequence[Any]:
        """Return the places of a record that stay: at most ``top``, or up to the last one that is referred to."""
        named = [index + 1 for index in referred(record, self.medium)]
        return record.places(self.medium)[: max(self.config.top * len(record.of(self.medium)), *named, 0)]

    def _replaced(self, record: Record, found: Sequence[Any]) -> Record:
        own, gold = record.places(self.medium), record.annotated
        if own != gold.places(self.medium):
            kind = PLACES[self.medium]
            raise UmieError(f"record {record.id}: its {kind} were proposed before: use the file with annotated {kind}")
        return replace(record.regrounded(self.medium, found, nearest_places(own, found)), gold=gold)

    def _recalled(self, record: Record, number: int, recent: dict[object, Found]) -> Found:
        source = record.of(self.medium)[number]
        if not isinstance(source, str):
            return self.candidates(source, record.text, file_name(source))
        key = (record.image_folder, source, record.text if self.reads_text else None)
        found = recent.pop(key, None)
        if found is None:
            found = self.candidates(record.path(self.medium, number) or source, record.text, Path(source).name)
        recent[key] = found  # most recently used
        if len(recent) > RECENT:
            del recent[next(iter(recent))]
        return found


def file_name(source: Any) -> str | None:
    """Return the file name of a path, or of an image that was read from a file; None for other media in memory."""
    path = source if isinstance(source, str | Path) else getattr(source, "filename", None)
    return Path(path).name if isinstance(path, str | Path) and str(path) else None


@dataclass
class Candidates(Generic[P]):
    """The segments or tracks that a proposer found, before selection."""

    found: list[tuple[P, float]] = field(default_factory=list)  # with scores of 0..1, higher is better
    dropped: Counter[str] = field(default_factory=Counter)  # number of invalid places, by reason
    num_clipped: int = 0


class PlaceProposer(MediumProposer[Candidates[P]]):
    """Finds segments in sounds, or tracks in videos; subclasses implement ``candidates``."""

    def propose(self, source: Any, text: str | None = None) -> list[P]:
        """Return at most ``top`` places, ascending in time; most proposers do not need the text.

        Args:
            source: a path, or a sound or clip in memory.
            text: the text that comes with it.

        Raises:
            UmieError: the medium, or its annotation (AnnotationError), cannot be read.
        """
        return self._chosen(self.candidates(source, text, file_name(source)), ())

    def _chosen(self, found: Candidates[P], own: Sequence[P]) -> list[P]:
        self.counts.update(found.dropped)
        self.num_found += len(found.found) + found.dropped.total()
        self.num_clipped += found.num_clipped
        top, overlap, min_score = self.config.top - len(own), self.config.nms, self.config.min_score
        taken = {extent(place) for place in own}
        kept: list[P] = []
        others: list[P] = list(own)
        for place, score in sorted(found.found, key=lambda item: (-item[1], *_place_order(item[0]))):
            if len(kept) == top or score < min_score:
                break
            if extent(place) in taken or (overlap < 1 and any(place_iou(place, one) > overlap for one in others)):
                continue
            taken.add(extent(place))
            kept.append(place)
            others.append(place)
        return sorted(kept, key=_place_order)


def _place_order(place: Segment | Track) -> tuple[Any, ...]:
    """Return what places are sorted by: the time, then the first box, then the label."""
    boxes = [box for box in place.boxes if box is not None] if isinstance(place, Track) else []
    return (*place.interval, boxes, place.label or "")
