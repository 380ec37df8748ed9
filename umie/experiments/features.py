"""The images of a cell: each is encoded once for all cells where the encoder is frozen, and calls are counted."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from umie.errors import UmieError
from umie.records import Record, Region

OnImage = Callable[[int, int], None]  # images done, of how many


class _NoImages:
    """Gives a fusion that does not look at images none, so that none is prepared."""

    def one(self, image: Any, regions: Any = ()) -> Any:
        """Return no slots."""
        from umie.encoders.base import no_slots

        return no_slots()


class EncoderCalls:
    """Counts the images that pass through an encoder, whoever calls it."""

    def __init__(self, encoder: Any) -> None:
        self._parts: list[Any] = []
        encoder.register_forward_hook(lambda module, arguments, output: self._parts.append(output.mask.any(1).sum()))

    @property
    def number(self) -> int:
        """Images so far."""
        return sum(int(part) for part in self._parts)


def store_features(
    model: Any,
    processor: Any,
    records: Sequence[Record],
    store: Mapping[str, Any],
    on_image: OnImage,
    log: Callable[[str], None],
) -> dict[str, Any]:
    """Let the processor read a frozen encoder's features from the grid's store, and fill in what that lacks.

    Returns:
        ``features``: ``stored``, ``made anew each time`` (the encoder learns, or there is no store), ``looked up``
        or ``not used``; how many ``images`` there are and are ``readable``, the fingerprint of a frozen ``encoder``,
        what the ``cache`` counted, and ``seconds``.
    """
    from umie.encoders import CachedEncoder, FeatureCache

    images = _images(records)
    report: dict[str, Any] = {"images": len(images), "seconds": 0.0}
    if model.encoder is None:
        processor.features = _NoImages()
        return report | {"features": "not used"}
    if model.encoder.reads_features:
        return report | {"features": "looked up"}
    if model.encoder.config.trainable or not store["enabled"]:
        return report | {"features": "made anew each time"}
    started = time.perf_counter()
    cache = FeatureCache(store["folder"], on_event=log)
    cached = CachedEncoder(model.encoder, cache)
    done = itertools.count(1)
    unreadable = 0

    def refuse(index: int, error: UmieError) -> None:
        nonlocal unreadable
        unreadable += 1  # the grid's policy decides when the image is asked for

    cached.fill(
        images,
        on_item=lambda number: on_image(next(done), len(images)),
        on_error=refuse,
    )
    processor.features = cached
    seconds = time.perf_counter() - started
    return report | {
        "features": "stored",
        "encoder": cached.fingerprint,
        "readable": len(images) - unreadable,
        "cache": dataclasses.asdict(cache.stats),
        "seconds": seconds,
    }


def _images(records: Sequence[Record]) -> list[tuple[Path, Sequence[Region]]]:
    """Return each image that lies where it may, with its regions, once."""
    found: dict[tuple[Path, Sequence[Region]], None] = {}
    for record in records:
        with contextlib.suppress(UmieError):
            path = record.image_path()
            if path is not None:
                found[path, record.regions] = None
    return list(found)
