"""Image features of a cell: a frozen encoder encodes each image once for all cells; calls are counted."""

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

OnImage = Callable[[int, int], None]  # finished images, all images


class _NoImages:
    """Features without slots, for fusions that do not use images, so that no image is read."""

    def one(self, image: Any, regions: Any = ()) -> Any:
        """Return no slots."""
        from umie.encoders.base import no_slots

        return no_slots()


class EncoderCalls:
    """Counter of the images that pass through an encoder."""

    def __init__(self, encoder: Any) -> None:
        self._parts: list[Any] = []
        encoder.register_forward_hook(lambda module, arguments, output: self._parts.append(output.mask.any(1).sum()))

    @property
    def number(self) -> int:
        """The number of images so far."""
        return sum(int(part) for part in self._parts)


def store_features(
    model: Any,
    processor: Any,
    records: Sequence[Record],
    options: Mapping[str, Any],
    on_image: OnImage,
    log: Callable[[str], None],
) -> dict[str, Any]:
    """Make the processor read the features of a frozen encoder from the store, and add missing features to it.

    Args:
        model: the variant.
        processor: its processor.
        records: the records whose images are used.
        options: ``enabled``, and ``folder``, the directory of the store.
        on_image: called with the number of images done and of all images.
        log: called with a line for every event of the store, e.g. a damaged entry.

    Returns:
        ``features`` (``stored``, ``looked up``, ``not used``, or ``computed each time`` if the encoder is trained or
        the store is disabled), the numbers of ``images`` and of ``readable`` images, the fingerprint of a frozen
        ``encoder``, the counts of the ``cache``, and ``seconds``.
    """
    from umie.encoders import CachedEncoder, FeatureCache

    images = _images(records)
    report: dict[str, Any] = {"images": len(images), "seconds": 0.0}
    if model.encoder is None:
        processor.features = _NoImages()
        return report | {"features": "not used"}
    if model.encoder.reads_features:
        return report | {"features": "looked up"}
    if model.encoder.config.trainable or not options["enabled"]:
        return report | {"features": "computed each time"}
    started = time.perf_counter()
    cache = FeatureCache(options["folder"], on_event=log)
    cached = CachedEncoder(model.encoder, cache)
    done = itertools.count(1)
    unreadable = 0

    def refuse(index: int, error: UmieError) -> None:
        nonlocal unreadable
        unreadable += 1  # the policy for missing images applies when the image is used

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
    """Return each distinct image with an allowed path, and its regions."""
    found: dict[tuple[Path, Sequence[Region]], None] = {}
    for record in records:
        with contextlib.suppress(UmieError):
            path = record.image_path()
            if path is not None:
                found[path, record.regions] = None
    return list(found)
