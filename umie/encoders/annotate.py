"""Add proposed places to the records of a data set, with a policy for unreadable media."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from umie.encoders.proposing import AnnotationError, FindsPlaces
from umie.errors import UmieError
from umie.records import Record
from umie.records.overlap import nearest_places
from umie.types import check_image_policy


@dataclass
class AnnotateStats:
    """Counts of what ``annotate`` and ``draw`` did."""

    records: int = 0  # yielded
    media: int = 0  # images, videos or sounds of these records
    proposals: int = 0  # places added
    cut: int = 0  # places removed from records that have more than the proposer's ``top``
    replaced: int = 0  # places replaced by proposals
    found: int = 0  # of these, those that a proposal overlaps by IoU >= 0.5
    drawn: int = 0  # images written
    unreadable: Counter[str] = field(default_factory=Counter)  # distinct media by "image" etc. or "annotation"
    left_out: Counter[str] = field(default_factory=Counter)  # records left out for that reason


def annotate(
    records: Iterable[Record],
    proposer: FindsPlaces,
    stats: AnnotateStats,
    *,
    missing_images: str = "error",
    replaces: bool = False,
    on_unreadable: Callable[[str, UmieError], None] | None = None,
    on_medium: Callable[[], None] | None = None,
) -> Iterator[Record]:
    """Yield records, read lazily, with proposed places, and update ``stats``; see ``MediumProposer.fill``.

    For a record whose medium or annotation cannot be read, ``missing_images="error"`` raises UmieError, "text_only"
    yields it without proposals, and "skip" leaves it out; ``on_unreadable`` is called once per such medium with its
    name (``"image"``) or ``"annotation"``, and the error. ``on_medium`` is called after each image, video or sound.
    """
    check_image_policy(missing_images)
    medium = proposer.medium
    unreadable: set[object] = set()
    recent: dict[object, Any] = {}
    for number, record in enumerate(records, start=1):
        sources = record.of(medium)
        filled, errors = proposer.filled(record, recent, number, replaces=replaces)
        kind = ""
        for image, error in errors.items():
            if missing_images == "error":
                raise error
            kind = "annotation" if isinstance(error, AnnotationError) else medium
            place = sources[image] if isinstance(sources[image], str) else id(sources[image])
            if place not in unreadable:
                unreadable.add(place)
                stats.unreadable[kind] += 1
                if on_unreadable is not None:
                    on_unreadable(kind, error)
        for _ in sources:
            if on_medium is not None:
                on_medium()
        if kind and missing_images == "skip":
            stats.left_out[kind] += 1
            continue
        given, places = record.places(medium), filled.places(medium)
        kept = 0 if replaces else min(len(given), len(places))
        if not replaces:
            stats.cut += len(given) - kept
        elif sources:
            stats.replaced += len(given)
            stats.found += len(nearest_places(given, places))
        stats.records += 1
        stats.media += len(sources)
        stats.proposals += len(places) - kept if sources else 0
        yield filled
    proposer.check()
