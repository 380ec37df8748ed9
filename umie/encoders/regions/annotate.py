"""Add proposed regions to the records of a data set, with a policy for images that cannot be read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from umie.encoders.regions.base import AnnotationError, Proposer
from umie.encoders.regions.drawing import draw_regions
from umie.errors import UmieError
from umie.files import atomic_write
from umie.images import open_image
from umie.records import Record
from umie.types import check_image_policy


@dataclass
class AnnotateStats:
    """Counts of what ``annotate`` did.

    Args:
        records: records yielded.
        images: those of them with an image.
        proposals: regions added.
        cut: regions removed from records that have more than the proposer's ``top``.
        drawn: images written by ``draw``.
        unreadable: distinct images whose ``"image"`` or whose ``"annotation"`` cannot be read.
        left_out: records left out for that reason.
    """

    records: int = 0
    images: int = 0
    proposals: int = 0
    cut: int = 0
    drawn: int = 0
    unreadable: Counter[str] = field(default_factory=Counter)
    left_out: Counter[str] = field(default_factory=Counter)


def annotate(
    records: Iterable[Record],
    proposer: Proposer,
    stats: AnnotateStats,
    *,
    missing_images: str = "error",
    on_unreadable: Callable[[str, UmieError], None] | None = None,
    on_image: Callable[[], None] | None = None,
) -> Iterator[Record]:
    """Yield records with proposed regions after their own; see ``Proposer.fill``.

    Args:
        records: read lazily.
        proposer: finds the regions.
        stats: updated while records are yielded.
        missing_images: for a record whose image or annotation cannot be read: "error" raises, "text_only" yields it
            unchanged, "skip" leaves it out.
        on_unreadable: called once per such image with ``"image"`` or ``"annotation"`` and the error.
        on_image: called after each record that has an image.

    Raises:
        UmieError: an image or an annotation cannot be read, and ``missing_images`` is "error".
    """
    check_image_policy(missing_images)
    current: list[Record] = []
    unreadable: set[object] = set()
    failed = ""

    def remembered() -> Iterator[Record]:
        for record in records:
            current[:] = [record]
            yield record

    def on_error(error: UmieError) -> None:
        nonlocal failed
        failed = "annotation" if isinstance(error, AnnotationError) else "image"
        image = current[0].image
        if image not in unreadable:
            unreadable.add(image)
            stats.unreadable[failed] += 1
            if on_unreadable is not None:
                on_unreadable(failed, error)

    for filled in proposer.fill(remembered(), None if missing_images == "error" else on_error):
        kind, failed = failed, ""
        if on_image is not None and filled.image is not None:
            on_image()
        if kind and missing_images == "skip":
            stats.left_out[kind] += 1
            continue
        added = len(filled.regions) - len(current[0].regions)
        stats.records += 1
        stats.images += filled.image is not None
        stats.proposals += max(0, added)
        stats.cut += max(0, -added)
        yield filled


def draw(records: Iterable[Record], folder: Path, limit: int, stats: AnnotateStats) -> Iterator[Record]:
    """Yield the records and write the first ``limit`` readable images, with their regions drawn, as PNG files."""
    for record in records:
        if record.image is not None and stats.drawn < limit:
            try:
                path = record.image_path()
                image = draw_regions(open_image(record.image if path is None else path), record.regions)
            except UmieError:
                pass  # already reported, or the proposer does not open images
            else:
                stats.drawn += 1
                name = "image" if path is None else path.stem[:100]
                with atomic_write(folder / f"{stats.drawn:04d}_{name}.png", "wb") as file:
                    image.save(file, "PNG")
        yield record
