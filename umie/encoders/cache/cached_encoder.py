"""CachedEncoder: a frozen encoder that encodes each image and its regions once; filling a cache from records."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import NamedTuple, TypeAlias

import torch
from filelock import FileLock
from PIL import Image
from torch import Tensor

from umie.encoders.base import VisualEncoder, collate, no_slots
from umie.encoders.cache.store import FeatureCache
from umie.errors import UmieError, check_whole
from umie.files import atomic_write, json_text
from umie.images import ImageSource, decode_image, image_digest, read_image_bytes
from umie.records import Box, Record, Region
from umie.types import FEATURES, check_image_policy

Regions: TypeAlias = Sequence[Region | Box]
Outcome: TypeAlias = dict[str, Tensor] | UmieError  # features and boxes of an image, or why there are none

FORMAT = 3  # increment it when the same image, boxes and encoder give other features or are stored in another way
POLL_S = 0.02  # between two attempts to take a lock


def feature_key(fingerprint: str, digest: str, boxes: Sequence[Box]) -> str:
    """Return the cache key of features, 64 hexadecimal digits.

    ``fingerprint`` is the encoder's, ``digest`` the image's (``umie.images.image_digest``), and ``boxes`` are those of
    all slots, that of the whole image included, relative to the image (0..1).
    """
    # adding 0.0 maps -0.0 and integers to the floats they equal
    parts = [FORMAT, fingerprint, digest, [[float(edge) + 0.0 for edge in box] for box in boxes]]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


class _Job(NamedTuple):
    key: str  # of the features
    image: Callable[[], Image.Image]  # decodes the bytes that the key was computed from
    regions: Regions


class CachedEncoder:
    """A frozen encoder in front of a FeatureCache; assign it to ``UmieProcessor.features``.

    Features equal those of ``encoder.encode`` bit for bit, in the encoder's dtype, for the batch in which the image
    was encoded: by itself in ``one``, together with others in ``fill``. Other batches differ by rounding (1e-5). The
    encoder may be moved to another device, but its weights must not change. ``calls`` is the number of images that were
    really encoded.

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

    def one(self, image: ImageSource | None, regions: Regions = ()) -> dict[str, Tensor]:
        """Return ``boxes [V, 4]``, ``visual_mask [V]`` and ``visual_features [V, Dv]`` of an image, on the CPU.

        The arguments and errors are those of ``Preprocessor.one``; nothing is cached after an error.
        """
        if image is None:
            dtype = next((parameter.dtype for parameter in self.encoder.parameters()), torch.float32)
            return {**no_slots(), FEATURES: torch.zeros(0, self.encoder.feature_dim, dtype=dtype)}
        job = self._job(image, regions)
        found: Outcome | None = self.cache.get(job.key)
        if found is None:
            outcomes, _ = self._encode_missing([job])
            found = outcomes[job.key]
        if isinstance(found, UmieError):
            raise found
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

        Items are images with their regions, or None for a record without an image. ``on_item`` is called with an item's
        index, from 0, when it is done, whether or not it succeeded; before it, ``on_error`` with the index and the
        error of an image that cannot be encoded. Without ``on_error`` the error is raised.
        """
        check_whole("batch_size", batch_size, 1)
        for index, outcome in self._outcomes(items, batch_size):
            if isinstance(outcome, UmieError):
                if on_error is None:
                    raise outcome
                on_error(index, outcome)
            if on_item is not None:
                on_item(index)

    def _outcomes(
        self, items: Iterable[tuple[ImageSource | None, Regions]], batch_size: int
    ) -> Iterator[tuple[int, object]]:
        """Yield the number of each item that is done, with its error if it has one."""
        batch: dict[int, _Job] = {}
        can_store = True
        for index, (image, regions) in enumerate(items):
            try:
                job = None if image is None else self._job(image, regions)
            except UmieError as error:
                yield index, error
                continue
            if job is None or self.cache.get(job.key) is not None:
                yield index, None
                continue
            batch[index] = job
            if len(batch) == batch_size:
                outcomes, can_store = self._encode_missing(list(batch.values()), can_store)
                yield from ((number, outcomes.get(job.key)) for number, job in batch.items())
                batch = {}
        if batch:
            outcomes, _ = self._encode_missing(list(batch.values()), can_store)
            yield from ((number, outcomes.get(job.key)) for number, job in batch.items())

    def _job(self, image: ImageSource, regions: Regions) -> _Job:
        self._check_weights(self._tensors)  # listing the tensors again would take longer than a cache hit
        boxes = self.encoder.preprocess.slots(regions)
        if isinstance(image, Image.Image):
            return _Job(feature_key(self.fingerprint, image_digest(image), boxes), lambda: image, regions)
        version = None  # changes when the file is written again
        with suppress(OSError, ValueError, TypeError):
            status = Path(image).stat()
            version = (str(image), status.st_mtime_ns, status.st_size)
        if version in self._digests:
            key = feature_key(self.fingerprint, self._digests[version], boxes)
            if key in self.cache:  # a hit needs no bytes; they are read only if the entry turns out to be damaged
                return _Job(key, lambda: decode_image(read_image_bytes(image), str(image)), regions)
        data = read_image_bytes(image)
        digest = image_digest(data)
        if version is not None:
            self._digests[version] = digest
        return _Job(feature_key(self.fingerprint, digest, boxes), partial(decode_image, data, str(image)), regions)

    def _encode_missing(self, jobs: Sequence[_Job], can_store: bool = True) -> tuple[dict[str, Outcome], bool]:
        """Return features or an error for each key, and False if features were computed and none could be stored.

        Without ``can_store`` the images are only checked, not encoded.
        """
        outcomes: dict[str, Outcome] = {}
        if not can_store:
            for job in jobs:
                try:
                    self.encoder.preprocess.check(job.image(), job.regions)
                except UmieError as error:
                    outcomes[job.key] = error
            return outcomes, False
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


def _tensors_of(encoder: VisualEncoder) -> Sequence[Tensor]:
    return [*encoder.parameters(), *encoder.buffers()]


def _state_of(tensors: Sequence[Tensor]) -> list[tuple[int, int]]:
    """Return address and version of each tensor, which change when weights do."""
    return [(tensor.data_ptr(), 0 if tensor.is_inference() else tensor._version) for tensor in tensors]


class UnreadableImage(NamedTuple):
    """A record whose image cannot be read, and why."""

    id: str | None
    image: str
    reason: str


def fill_from_records(
    cached: CachedEncoder,
    records: Iterable[Record],
    *,
    missing_images: str = "skip",
    batch_size: int = 8,
    on_record: Callable[[], None] | None = None,
) -> list[UnreadableImage]:
    """Encode the images of records that the cache does not have yet; return the images that cannot be read.

    Records are read lazily; those without an image are ignored. ``on_record`` is called after each of the others. With
    ``missing_images="error"`` the first image that cannot be read raises UmieError.
    """
    check_image_policy(missing_images)
    unreadable: list[UnreadableImage] = []
    pending: dict[int, Record] = {}

    def refuse(index: int, error: UmieError) -> None:
        record = pending[index]
        if missing_images == "error":
            raise UmieError(f"record {record.id!r}: {error}; fix it, or set missing_images to 'skip'") from error
        unreadable.append(UnreadableImage(record.id, str(record.image), str(error)))

    def items() -> Iterator[tuple[ImageSource | None, Regions]]:
        for index, record in enumerate(record for record in records if record.image is not None):
            pending[index] = record
            try:
                path = record.image_path()
            except UmieError as error:  # the path leaves the image folder
                refuse(index, error)
                yield None, ()
            else:
                yield record.image if path is None else path, record.regions

    def finish(index: int) -> None:
        del pending[index]
        if on_record is not None:
            on_record()

    cached.fill(items(), batch_size=batch_size, on_item=finish, on_error=refuse)
    return unreadable


def write_unreadable(path: str | Path, unreadable: Sequence[UnreadableImage]) -> None:
    """Write a JSONL file with one line per unreadable image; an existing list is replaced even if there are none."""
    path = Path(path)
    if unreadable or path.exists():
        with atomic_write(path) as file:
            file.writelines(json_text(item._asdict()) + "\n" for item in unreadable)
