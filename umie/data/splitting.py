"""Divide records into splits by image, and put regions into random order."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import replace

from umie.errors import UmieError
from umie.records import Places, Record, Span
from umie.records.model import moved_places

SHARES: Mapping[str, float] = {"train": 0.7, "dev": 0.1, "test": 0.2}


def split_by_image(
    records: Iterable[Record], shares: Mapping[str, float] = SHARES, *, rng: random.Random
) -> dict[str, list[Record]]:
    """Divide records between splits, so that no split has an image of another.

    Args:
        records: the records; one without an image is divided by its id, or by itself.
        shares: the share of the images in each split.
        rng: the source of randomness.
    """
    by_image: dict[str, list[Record]] = defaultdict(list)
    for number, record in enumerate(records):
        by_image[str(record.image if record.image is not None else record.id or number)].append(record)
    images = sorted(by_image)
    rng.shuffle(images)
    divided: dict[str, list[Record]] = {}
    start = 0.0
    for name, share in shares.items():
        end = start + share * len(images)
        divided[name] = [record for image in images[round(start) : round(end)] for record in by_image[image]]
        start = end
    return divided


def with_shuffled_regions(record: Record, rng: random.Random) -> Record:
    """Return a record with its regions in random order; equal boxes become one region.

    In many data sets regions are in the order of their mentions, from which a model could guess instead of looking.
    """
    boxes: dict[tuple[float, ...], int] = {}
    first = [boxes.setdefault(region.box, index) for index, region in enumerate(record.regions)]
    order = sorted(set(first))
    rng.shuffle(order)
    place = {old: new for new, old in enumerate(order)}

    def moved(_: Span | None, places: Places) -> Places:
        return places._replace(regions=tuple(sorted({place[first[index]] for index in places.regions})))

    return replace(record, regions=tuple(record.regions[index] for index in order), **moved_places(record, moved))


def check_shares(dev: float, test: float) -> dict[str, float]:
    """Return the share of each split; raise UmieError if nothing is left for training."""
    if dev + test >= 1:
        raise UmieError(f"--dev {dev:g} and --test {test:g} leave no images for training: use smaller shares")
    return {"train": 1 - dev - test, "dev": dev, "test": test}
