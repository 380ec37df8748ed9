"""The feature cache: what a frozen encoder makes of an image and its regions, encoded once and kept on disk."""

from __future__ import annotations

import hashlib
import json
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import torch
from filelock import FileLock
from PIL import Image
from torch import Tensor

from umie.encoders.base import VisualEncoder, collate, no_slots
from umie.encoders.cache.store import CacheStats, FeatureCache
from umie.encoders.images import ImageSource, open_image
from umie.errors import UmieError, check_whole
from umie.records import Box, Region
from umie.types import FEATURES

__all__ = ["CacheStats", "CachedEncoder", "FeatureCache", "feature_key", "image_digest"]

Regions: TypeAlias = Sequence[Region | Box]

FORMAT = 1  # raise it where the same image, boxes and encoder would give other features than before
POLL = 0.02  # seconds between two looks at a lock that another process holds


def image_digest(image: ImageSource) -> str:
    """Return a hash of what features can depend on in an image.

    Args:
        image: of a path, the bytes of its file; of a PIL image, the pixels as displayed: mode, palette,
            transparency and EXIF orientation are in what ``open_image`` makes of them.

    Raises:
        UmieError: there is no such file, it cannot be read, or the image cannot be decoded.
    """
    if isinstance(image, Image.Image):
        image = open_image(image)
        return hashlib.sha256(f"RGB {image.width} {image.height} ".encode() + image.tobytes()).hexdigest()
    if not isinstance(image, str | Path):
        raise UmieError(f"an image is a PIL image or a path, not {type(image).__name__}")
    try:
        if not stat.S_ISREG(Path(image).stat().st_mode):  # a pipe would be waited for
            raise UmieError(f"{image}: not a readable image (it is no file)")
        with Path(image).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError as error:
        raise UmieError(f"{image}: no such image") from error
    except OSError as error:
        raise UmieError(f"{image}: not a readable image ({error.strerror})") from error
    except UmieError:
        raise
    except ValueError as error:  # a NUL character in the name
        raise UmieError(f"{image}: not a readable image ({error})") from error


def feature_key(fingerprint: str, digest: str, boxes: Sequence[Box]) -> str:
    """Return the key of features in the cache, 64 hexadecimal digits.

    Args:
        fingerprint: the encoder's, of its options and weights.
        digest: the image's.
        boxes: of all slots, the whole image included, relative to the image (0..1).
    """
    # 0.0 is added to make -0.0 and whole numbers the same as the floats they equal
    parts = [FORMAT, fingerprint, digest, [[float(edge) + 0.0 for edge in box] for box in boxes]]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def _tensors_of(encoder: VisualEncoder) -> Sequence[Tensor]:
    return [*encoder.parameters(), *encoder.buffers()]


def _state_of(tensors: Sequence[Tensor]) -> list[tuple[int, int]]:
    """Return what changes where weights do: where each lies, and how often it was written."""
    return [(tensor.data_ptr(), 0 if tensor.is_inference() else tensor._version) for tensor in tensors]


@dataclass
class _Job:
    """One image that is to be encoded, under the key that its features will have."""

    key: str
    digest: str
    image: ImageSource
    regions: Regions
    index: int = 0


class CachedEncoder:
    """A frozen encoder that looks into the cache first; stands between a processor and the encoder.

    What it gives is bit for bit what ``encoder.encode`` gives, in the encoder's own dtype, for the batch in which
    the image was encoded: alone by ``one``, with others by ``fill``. The batch shows in the last bits (1e-5).

    Args:
        encoder: frozen; it may move to another device, but weights that change from now on are an error.
        cache: where features are kept.

    Attributes:
        fingerprint: of the encoder.
        calls: images that the encoder has really encoded.

    Raises:
        UmieError: the encoder is trainable, or looks features up itself; later, that its weights have changed.
    """

    def __init__(self, encoder: VisualEncoder, cache: FeatureCache) -> None:
        name = type(encoder).__name__
        if getattr(encoder, "is_lookup", False):
            raise UmieError(
                f"{name} reads features from files and does not look at images: caching it under the images' "
                "bytes would be wrong; use it without a cache"
            )
        if encoder.config.trainable:
            raise UmieError(f"{name} is trainable, its features change as it learns: cache it with trainable=False")
        self.encoder = encoder
        self.cache = cache
        self.fingerprint = encoder.fingerprint()
        self.calls = 0
        self._tensors: Sequence[Tensor] = _tensors_of(encoder)
        self._state = _state_of(self._tensors)

    def key(self, image: ImageSource, regions: Regions = ()) -> str:
        """Return the key of an image's features; regions beyond ``max_regions`` do not count.

        Raises:
            UmieError: the image's file cannot be read, or a box is none.
        """
        return self._job(image, regions).key

    def one(self, image: ImageSource | None, regions: Regions = ()) -> dict[str, Tensor]:
        """Return ``boxes [V, 4]``, ``visual_mask [V]`` and ``visual_features [V, Dv]`` of an image, on the CPU.

        Args:
            image: PIL image or path; None gives no slot at all (V = 0).
            regions: relative boxes, x1, y1, x2, y2 in 0..1; those beyond ``max_regions`` are left out.

        Raises:
            UmieError: the image cannot be read, or a box leaves it; nothing is cached then.
        """
        if image is None:
            dtype = next((parameter.dtype for parameter in self.encoder.parameters()), torch.float32)
            return {**no_slots(), FEATURES: torch.zeros(0, self.encoder.feature_dim, dtype=dtype)}
        job = self._job(image, regions)
        found = self.cache.get(job.key)
        if found is None:
            encoded, _ = self._encode_missing([job])
            outcome = encoded[job.key]
            if isinstance(outcome, UmieError):
                raise outcome
            found = outcome
        mask = torch.ones(len(found["boxes"]), dtype=torch.bool)
        return {"boxes": found["boxes"], "visual_mask": mask, FEATURES: found["features"]}

    def fill(
        self,
        items: Iterable[tuple[ImageSource | None, Regions]],
        *,
        batch_size: int = 8,
        on_item: Callable[[int], None] | None = None,
        on_error: Callable[[int, UmieError], None] | None = None,
    ) -> None:
        """Encode what the cache does not have yet, in batches; of several processes one encodes each image.

        Every batch is stored before the next is begun: an interruption loses one batch at most. Where a whole
        batch cannot be stored (a full disk), no more is encoded; the remaining images are only checked.
        Processes with one encoder take turns at encoding: they share the work, but not at the same moment.

        Args:
            items: images with their regions; None for a record without an image.
            batch_size: images that the encoder is given at a time.
            on_item: called with an item's number, from 0, when it is done, whatever came of it.
            on_error: called before that with the number and the error where an image cannot be encoded; without it
                the error is raised.

        Raises:
            UmieError: an image cannot be read or a box leaves it, and there is no ``on_error``.
        """
        check_whole("batch_size", batch_size, 1)
        stores = True

        def finish(number: int, outcome: object) -> None:
            if isinstance(outcome, UmieError):
                if on_error is None:
                    raise outcome
                on_error(number, outcome)
            if on_item is not None:
                on_item(number)

        def encode(jobs: list[_Job]) -> None:
            nonlocal stores
            if stores:
                outcomes, stores = self._encode_missing(jobs)
            else:
                outcomes = {job.key: outcome for job in jobs if (outcome := self._checked(job))}
            for job in jobs:
                finish(job.index, outcomes.get(job.key))

        jobs: list[_Job] = []
        for number, (image, regions) in enumerate(items):
            outcome: object = None
            if image is not None:
                try:
                    job = self._job(image, regions, number)
                except UmieError as error:
                    outcome = error
                else:
                    if self.cache.get(job.key) is None:
                        jobs.append(job)
                        if len(jobs) == batch_size:
                            encode(jobs)
                            jobs = []
                        continue
            finish(number, outcome)
        if jobs:
            encode(jobs)

    def _job(self, image: ImageSource, regions: Regions, number: int = 0) -> _Job:
        self._check_weights(self._tensors)  # those known before: to list them anew would take longer than a hit
        boxes = self.encoder.preprocess.slots(regions)
        digest = image_digest(image)
        return _Job(feature_key(self.fingerprint, digest, boxes), digest, image, regions, number)

    def _checked(self, job: _Job) -> UmieError | None:
        try:
            self.encoder.preprocess.check(job.image, job.regions)
        except UmieError as error:
            return error
        return None

    def _encode_missing(self, jobs: Sequence[_Job]) -> tuple[dict[str, dict[str, Tensor] | UmieError], bool]:
        """Return features or an error for each key, and whether any could be stored (or none had to be).

        One lock for each encoder: who waited for it looks again whether another process has done the work.
        """
        outcomes: dict[str, dict[str, Tensor] | UmieError] = {}
        inputs: dict[str, dict[str, Tensor]] = {}
        repeated = []
        with self._lock():
            for job in jobs:
                if job.key in inputs or job.key in outcomes:
                    repeated.append(job)
                    continue
                found = self.cache.get_after_miss(job.key)
                if found is not None:
                    outcomes[job.key] = found
                    continue
                try:
                    inputs[job.key] = self._inputs(job)
                except UmieError as error:
                    outcomes[job.key] = error
            encoded = dict(zip(inputs, self._encode(list(inputs.values())), strict=True)) if inputs else {}
            stored = [self.cache.put(key, tensors) for key, tensors in encoded.items()]
        for job in repeated:
            self.cache.get_after_miss(job.key)  # for the count: it was found, in the end
        return {**outcomes, **encoded}, not stored or any(stored)

    def _inputs(self, job: _Job) -> dict[str, Tensor]:
        inputs = self.encoder.preprocess.one(job.image, job.regions)
        if not isinstance(job.image, Image.Image) and image_digest(job.image) != job.digest:
            raise UmieError(f"{job.image}: changed while it was read: run again when it is whole")
        return inputs

    def _check_weights(self, tensors: Sequence[Tensor]) -> None:
        """Raise UmieError where the weights are others than when the fingerprint was taken; a move is no change."""
        state = _state_of(tensors)
        if state != self._state:
            if self.encoder.fingerprint() != self.fingerprint:
                raise UmieError(
                    f"the weights of {type(self.encoder).__name__} have changed since it was given to CachedEncoder, "
                    "so its features are others: make a new CachedEncoder"
                )
            self._tensors, self._state = tensors, state

    def _encode(self, inputs: Sequence[dict[str, Tensor]]) -> list[dict[str, Tensor]]:
        self._check_weights(_tensors_of(self.encoder))
        parameter = next(self.encoder.parameters(), None)
        device = torch.device("cpu") if parameter is None else parameter.device
        modes = [(module, module.training) for module in self.encoder.modules()]
        try:
            self.encoder.eval()
            # autocast would make other features than the key says
            with torch.no_grad(), torch.autocast(device.type, enabled=False):
                found = self.encoder(**{name: value.to(device) for name, value in collate(inputs).items()})
        finally:
            for module, mode in modes:
                module.training = mode
        self.calls += len(inputs)
        features = found.features.cpu()
        return [
            {"features": row[: len(item["boxes"])].clone(), "boxes": item["boxes"]}
            for row, item in zip(features, inputs, strict=True)
        ]

    @contextmanager
    def _lock(self) -> Iterator[None]:
        folder = self.cache.folder / "locks"
        lock = FileLock(folder / f"{self.fingerprint}.lock")
        with suppress(OSError):  # where it cannot be written nothing will be stored: there is nothing to wait for
            folder.mkdir(exist_ok=True)
            lock.acquire(poll_interval=POLL)
        try:
            yield
        finally:
            lock.release()
