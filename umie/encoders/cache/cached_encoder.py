"""CachedEncoder: a frozen encoder that encodes each image and its regions once and keeps the features on disk."""

from __future__ import annotations

import hashlib
import json
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
from umie.encoders.cache.store import FeatureCache
from umie.errors import UmieError, check_whole
from umie.images import ImageSource, decode_image, image_digest, read_image_bytes
from umie.records import Box, Region
from umie.types import FEATURES

Regions: TypeAlias = Sequence[Region | Box]

FORMAT = 2  # raise it when the same image, boxes and encoder give other features or are stored in another way
POLL_S = 0.02  # between two attempts to take a lock


def feature_key(fingerprint: str, digest: str, boxes: Sequence[Box]) -> str:
    """Return the cache key of features, 64 hexadecimal digits.

    Args:
        fingerprint: the encoder's, a hash of its options and weights.
        digest: the image's, see ``umie.images.image_digest``.
        boxes: of all slots including the whole image, relative to the image (0..1).
    """
    # adding 0.0 maps -0.0 and integers to the floats they equal
    parts = [FORMAT, fingerprint, digest, [[float(edge) + 0.0 for edge in box] for box in boxes]]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


@dataclass
class _Job:
    """An image to encode, and the key of its features."""

    key: str
    source: ImageSource
    data: bytes | None  # of the file; None for an image in memory, and where the features were there
    regions: Regions
    index: int = 0

    def image(self) -> Image.Image:
        """Return the image, from the bytes that the key was computed from; the file is read again only after a hit."""
        if isinstance(self.source, Image.Image):
            return self.source
        return decode_image(read_image_bytes(self.source) if self.data is None else self.data, str(self.source))


class CachedEncoder:
    """A frozen encoder in front of a FeatureCache; assign it to ``UmieProcessor.features``.

    Features equal those of ``encoder.encode`` bit for bit, in the encoder's dtype, for the batch in which the image
    was encoded: by itself in ``one``, together with others in ``fill``. Other batches differ by rounding (1e-5).

    Args:
        encoder: a frozen encoder. It may be moved to another device, but its weights must not change.
        cache: where features are kept.

    Attributes:
        fingerprint: of the encoder.
        calls: number of images that were really encoded.

    Raises:
        UmieError: the encoder is trainable or reads its features from files; later, if its weights have changed.
    """

    def __init__(self, encoder: VisualEncoder, cache: FeatureCache) -> None:
        name = type(encoder).__name__
        if encoder.reads_features:
            raise UmieError(
                f"{name} reads features from files and ignores pixels, so a cache keyed by the image's bytes would be "
                "wrong: use it without a cache"
            )
        if encoder.config.trainable:
            raise UmieError(f"{name} is trainable, so its features change: build it with trainable=False to cache them")
        self.encoder = encoder
        self.cache = cache
        self.fingerprint = encoder.fingerprint()
        self.calls = 0
        self._tensors: Sequence[Tensor] = _tensors_of(encoder)
        self._state = _state_of(self._tensors)
        self._digests: dict[tuple[str, int, int], str] = {}

    def key(self, image: ImageSource, regions: Regions = ()) -> str:
        """Return the cache key of an image's features; regions beyond ``max_regions`` are ignored.

        Raises:
            UmieError: the image's file cannot be read, or a box is invalid.
        """
        return self._job(image, regions).key

    def one(self, image: ImageSource | None, regions: Regions = ()) -> dict[str, Tensor]:
        """Return ``boxes [V, 4]``, ``visual_mask [V]`` and ``visual_features [V, Dv]`` of an image, on the CPU.

        Args:
            image: PIL image or path; None gives no slots (V = 0).
            regions: relative boxes, x1, y1, x2, y2 in 0..1; those beyond ``max_regions`` are ignored.

        Raises:
            UmieError: the image cannot be read, or a box is invalid; nothing is cached then.
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
        """Encode the images that the cache does not have yet, in batches.

        Each batch is stored before the next one starts, so an interruption loses at most one batch. If no image of a
        batch can be stored (a full disk), the remaining images are only checked, not encoded. Processes with the same
        encoder take turns, and each image is encoded by one of them.

        Args:
            items: images with their regions; None for a record without an image.
            batch_size: number of images per forward pass.
            on_item: called with an item's index, from 0, when it is done, whether or not it succeeded.
            on_error: called before ``on_item`` with the index and the error of an image that cannot be encoded;
                without it the error is raised.

        Raises:
            UmieError: an image cannot be read or a box is invalid, and there is no ``on_error``.
        """
        check_whole("batch_size", batch_size, 1)
        can_store = True

        def finish(index: int, outcome: object) -> None:
            if isinstance(outcome, UmieError):
                if on_error is None:
                    raise outcome
                on_error(index, outcome)
            if on_item is not None:
                on_item(index)

        def encode(jobs: list[_Job]) -> None:
            nonlocal can_store
            if can_store:
                outcomes, can_store = self._encode_missing(jobs)
            else:
                outcomes = {job.key: error for job in jobs if (error := self._error_of(job)) is not None}
            for job in jobs:
                finish(job.index, outcomes.get(job.key))

        jobs: list[_Job] = []
        for index, (image, regions) in enumerate(items):
            outcome: object = None
            if image is not None:
                try:
                    job = self._job(image, regions, index)
                except UmieError as error:
                    outcome = error
                else:
                    if self.cache.get(job.key) is None:
                        jobs.append(job)
                        if len(jobs) == batch_size:
                            encode(jobs)
                            jobs = []
                        continue
            finish(index, outcome)
        if jobs:
            encode(jobs)

    def _job(self, image: ImageSource, regions: Regions, index: int = 0) -> _Job:
        self._check_weights(self._tensors)  # listing the tensors again would take longer than a cache hit
        boxes = self.encoder.preprocess.slots(regions)
        if isinstance(image, Image.Image):
            return _Job(feature_key(self.fingerprint, image_digest(image), boxes), image, None, regions, index)
        version = _version_of(image)
        known = None if version is None else self._digests.get(version)
        if known is not None:
            key = feature_key(self.fingerprint, known, boxes)
            if self.cache.path(key).exists():  # a hit needs no bytes
                return _Job(key, image, None, regions, index)
        data = read_image_bytes(image)
        digest = image_digest(data)
        if version is not None:
            self._digests[version] = digest
        return _Job(feature_key(self.fingerprint, digest, boxes), image, data, regions, index)

    def _error_of(self, job: _Job) -> UmieError | None:
        try:
            self.encoder.preprocess.check(job.image(), job.regions)
        except UmieError as error:
            return error
        return None

    def _encode_missing(self, jobs: Sequence[_Job]) -> tuple[dict[str, dict[str, Tensor] | UmieError], bool]:
        """Return features or an error for each key, and False if features were computed and none could be stored."""
        outcomes: dict[str, dict[str, Tensor] | UmieError] = {}
        inputs: dict[str, dict[str, Tensor]] = {}
        repeated = []
        with self._lock():
            for job in jobs:
                if job.key in inputs or job.key in outcomes:
                    repeated.append(job)
                    continue
                found = self.cache.get_after_miss(job.key)  # stored by another process while this one waited
                if found is not None:
                    outcomes[job.key] = found
                    continue
                try:
                    inputs[job.key] = self.encoder.preprocess.one(job.image(), job.regions)
                except UmieError as error:
                    outcomes[job.key] = error
            encoded = dict(zip(inputs, self._encode(list(inputs.values())), strict=True)) if inputs else {}
            stored = [self.cache.put(key, tensors) for key, tensors in encoded.items()]
        for job in repeated:
            self.cache.get_after_miss(job.key)  # counts the repetition as a hit
        return {**outcomes, **encoded}, not stored or any(stored)

    def _check_weights(self, tensors: Sequence[Tensor]) -> None:
        """Raise UmieError if the weights differ from those of the fingerprint; moving them is not a change."""
        state = _state_of(tensors)
        if state != self._state:
            if self.encoder.fingerprint() != self.fingerprint:
                raise UmieError(
                    f"the weights of {type(self.encoder).__name__} have changed since it was passed to CachedEncoder: "
                    "make a new CachedEncoder"
                )
            self._tensors, self._state = tensors, state

    def _encode(self, inputs: Sequence[dict[str, Tensor]]) -> list[dict[str, Tensor]]:
        self._check_weights(_tensors_of(self.encoder))
        parameter = next(self.encoder.parameters(), None)
        device = torch.device("cpu") if parameter is None else parameter.device
        modes = [(module, module.training) for module in self.encoder.modules()]
        try:
            self.encoder.eval()
            # autocast would compute other features under the same key
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
        """Hold the lock of this encoder, so that several processes do not encode the same images."""
        folder = self.cache.folder / "locks"
        lock = FileLock(folder / f"{self.fingerprint}.lock")
        with suppress(OSError):  # in a read-only folder nothing will be stored, so there is nothing to wait for
            folder.mkdir(exist_ok=True)
            lock.acquire(poll_interval=POLL_S)
        try:
            yield
        finally:
            lock.release()


def _version_of(path: str | Path) -> tuple[str, int, int] | None:
    """Return what changes when an image file is written again; None if it cannot be said."""
    try:
        found = Path(path).stat()
    except (OSError, ValueError, TypeError):
        return None
    return str(path), found.st_mtime_ns, found.st_size


def _tensors_of(encoder: VisualEncoder) -> Sequence[Tensor]:
    return [*encoder.parameters(), *encoder.buffers()]


def _state_of(tensors: Sequence[Tensor]) -> list[tuple[int, int]]:
    """Return address and version of each tensor, which change when weights do."""
    return [(tensor.data_ptr(), 0 if tensor.is_inference() else tensor._version) for tensor in tensors]
