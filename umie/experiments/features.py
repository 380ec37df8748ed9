"""Image features of a cell: a frozen encoder encodes each image once for all cells."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from umie.errors import UmieError
from umie.records import Record, Region


def store_features(
    model: Any,
    processor: Any,
    records: Sequence[Record],
    folder: Path | None,
    on_share: Callable[[float], None],
    log: Callable[[str], None],
) -> dict[str, Any]:
    """Make the processor read the features of a frozen encoder from the store, and add missing features to it.

    Without a ``folder`` for the store, features are computed in every epoch. ``on_share`` is called with the finished
    share (0..1) of the images, ``log`` with a line for every event of the store, e.g. a damaged entry.

    Returns:
        ``features`` (``stored``, ``looked up``, ``not used``, or ``computed each time`` if the encoder is trained or
        there is no store), the numbers of ``images`` and of ``readable`` images, the fingerprint of a frozen
        ``encoder``, the counts of the ``cache``, and ``seconds``.
    """
    from umie.encoders import CachedEncoder, FeatureCache
    from umie.encoders.base import no_slots

    distinct: dict[tuple[Path, Sequence[Region]], None] = {}
    for record in records:
        with contextlib.suppress(UmieError):  # a path that leaves its folder
            path = record.image_path()
            if path is not None:
                distinct[path, record.regions] = None
    images = list(distinct)
    report: dict[str, Any] = {"images": len(images), "seconds": 0.0}
    if model.encoder is None:
        processor.features = SimpleNamespace(one=lambda image, regions=(): no_slots())  # so that no image is read
        return report | {"features": "not used"}
    if model.encoder.reads_features:
        return report | {"features": "looked up"}
    if model.encoder.config.trainable or folder is None:
        return report | {"features": "computed each time"}
    started = time.perf_counter()
    cache = FeatureCache(folder, on_event=log)
    processor.features = CachedEncoder(model.encoder, cache)
    done = itertools.count(1)
    unreadable: list[int] = []  # the policy for missing images applies when an image is used
    processor.features.fill(
        images,
        on_item=lambda number: on_share(next(done) / len(images)),
        on_error=lambda index, error: unreadable.append(index),
    )
    return report | {
        "features": "stored",
        "encoder": processor.features.fingerprint,
        "readable": len(images) - len(unreadable),
        "cache": dataclasses.asdict(cache.stats),
        "seconds": time.perf_counter() - started,
    }
