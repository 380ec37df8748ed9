"""CachedEncoder: a frozen encoder that encodes each image, video or sound once; filling a cache from records."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from stat import S_ISDIR
from typing import Any, NamedTuple, TypeAlias

import torch
from PIL import Image
from torch import Tensor

from umie.encoders.base import VisualEncoder, collate, in_evaluation_mode, no_slots
from umie.encoders.cache.store import FeatureCache
from umie.errors import UmieError, check_whole
from umie.files import atomic_write, json_text
from umie.images import decode_image, image_digest, read_image_bytes
from umie.media import media_digest
from umie.records import Record
from umie.types import FEATURES, check_image_policy

Places: TypeAlias = Sequence[Any]  # regions, tracks or segments
Outcome: TypeAlias = dict[str, Tensor] | UmieError  # features and places of the slots, or why there are none

FORMAT = 3  # increment it when the same image, boxes and encoder give other features or are stored in another way


def feature_key(fingerprint: str, digest: str, places: Sequence[Any]) -> str:
    """Return the cache key of features, 64 hexadecimal digits.

    ``fingerprint`` is the encoder's, ``digest`` that of the image (``umie.images.image_digest``), video or sound
    (``umie.media.media_digest``), and ``places`` is what ``MediaPreprocessor.identity`` returns: of an image the boxes
    of all slots, that of the whole image included.
    """
    parts = [FORMAT, fingerprint, digest, _plain(places)]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def _plain(value: Any) -> Any:
    """Return nested numbers as lists of floats; adding 0.0 maps -0.0 and integers to the floats they equal."""
    if value is None or isinstance(value, int | float):
        return None if value is None else float(value) + 0.0
    return list(map(_plain, value))


class _Job(NamedTuple):
    key: str  # of the features
    source: Callable[[], Any]  # what to encode; an image is decoded from the bytes that the key was computed from
    places: Places


class CachedEncoder:
    """A frozen encoder in front of a FeatureCache; set it in ``UmieProcessor.features``.

    Features equal those of ``encoder.encode`` bit for bit, in the encoder's dtype, for the batch in which the image,
    video or sound was encoded: by itself in ``one``, together with others in ``fill``. Other batches differ by rounding
    (1e-5). The encoder may be moved to another device, but its weights must not change. ``calls`` is the number of
    images, videos or sounds that were really encoded.

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
        self._state = state_of(self._tensors)
        self._digests: dict[tuple[str, int, int], str] = {}

    def one(self, source: Any, places: Places = ()) -> dict[str, Tensor]:
        """Return ``visual_features [V, Dv]`` of an image, video or sound, and the tensors of ``no_slots``, on the CPU.

        The arguments and errors are those of the encoder's ``Preprocessor.one``; nothing is cached after an error.
        """
        if source is None:
            dtype = next((parameter.dtype for parameter in self.encoder.parameters()), torch.float32)
            features = torch.zeros(0, self.encoder.feature_dim, dtype=dtype)
            return {**no_slots(self.encoder.medium), FEATURES: features}
        job = self._job(source, places)
        found: Outcome | None = self.cache.get(job.key)
        if found is None:
            outcomes, _ = self._encode_missing([job])
            found = outcomes[job.key]
        if isinstance(found, UmieError):
            raise found
        mask = torch.ones(len(found["boxes"]), dtype=torch.bool)
        where = {name: tensor for name, tensor in found.items() if name != "features"}
        return {**where, "visual_mask": mask, FEATURES: found["features"]}

    def fill(
        self,
        items: Iterable[tuple[Any, Places]],
        *,
        batch_size: int = 8,
        on_item: Callable[[int], None] | None = None,
        on_error: Callable[[int, UmieError], None] | None = None,
    ) -> None:
        """Encode the images, videos or sounds that the cache does not have yet, in batches.

        Each batch is stored before the next one starts, so an interruption loses at most one batch. If nothing of a
        batch can be stored (a full disk), the remaining ones are only checked, not encoded. Processes with the same
        encoder take turns, and each image is encoded by one of them.

        Items are images, videos or sounds with their places, or None for a record without one. ``on_item`` is called
        with an item's index, from 0, when it is done, whether or not it succeeded; before it, ``on_error`` with the
        index and the error of one that cannot be encoded. Without ``on_error`` the error is raised.
        """
        check_whole("batch_size", batch_size, 1)
        for index, outcome in self._outcomes(items, batch_size):
            if isinstance(outcome, UmieError):
                if on_error is None:
                    raise outcome
                on_error(index, outcome)
            if on_item is not None:
                on_item(index)

    def _outcomes(self, items: Iterable[tuple[Any, Places]], batch_size: int) -> Iterator[tuple[int, object]]:
        """Yield the number of each item that is done, with its error if it has one."""
        batch: dict[int, _Job] = {}
        can_store = True
        for index, (source, places) in enumerate(items):
            try:
                job = None if source is None else self._job(source, places)
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

    def _job(self, source: Any, places: Places) -> _Job:
        is_image = self.encoder.medium == "image"
        key = partial(feature_key, self.fingerprint, places=self.encoder.preprocess.identity(places))
        if not isinstance(source, str | Path):
            return _Job(key(image_digest(source) if is_image else media_digest(source)), lambda: source, places)
        version = None  # changes when the file is written again
        with suppress(OSError, ValueError):
            status = Path(source).stat()
            if not S_ISDIR(status.st_mode):  # whose files can change
                version = (str(source), status.st_mtime_ns, status.st_size)
        if version in self._digests:
            known = key(self._digests[version])
            if known in self.cache:  # a hit needs no bytes; they are read only if the entry turns out to be damaged
                return _Job(known, partial(_read_image, source) if is_image else lambda: source, places)
        data = read_image_bytes(source) if is_image else b""
        digest = image_digest(data) if is_image else media_digest(source)
        if version is not None:
            self._digests[version] = digest
        return _Job(key(digest), partial(decode_image, data, str(source)) if is_image else lambda: source, places)

    def _encode_missing(self, jobs: Sequence[_Job], can_store: bool = True) -> tuple[dict[str, Outcome], bool]:
        """Return features or an error for each key, and False if features were computed and none could be stored.

        Without ``can_store`` the sources are only checked, not encoded.
        """
        outcomes: dict[str, Outcome] = {}
        if not can_store:
            for job in jobs:
                try:
                    self.encoder.preprocess.check(job.source(), job.places)
                except UmieError as error:
                    outcomes[job.key] = error
            return outcomes, False
        inputs: dict[str, dict[str, Tensor]] = {}
        repeated = []
        with self.cache.lock(self.fingerprint):
            for job in jobs:
                if job.key in inputs or job.key in outcomes:
                    repeated.append(job)
                    continue
                found = self.cache.get_after_miss(job.key)  # stored by another process while this one waited
                if found is not None:
                    outcomes[job.key] = found
                    continue
                try:
                    inputs[job.key] = self.encoder.preprocess.one(job.source(), job.places)
                except UmieError as error:
                    outcomes[job.key] = error
            encoded = dict(zip(inputs, self._encode(list(inputs.values())), strict=True)) if inputs else {}
            stored = [self.cache.put(key, tensors) for key, tensors in encoded.items()]
        for job in repeated:
            self.cache.get_after_miss(job.key)  # counts the repetition as a hit
        return {**outcomes, **encoded}, not stored or any(stored)

    def _check_weights(self, tensors: Sequence[Tensor]) -> None:
        """Raise UmieError if the weights differ from those of the fingerprint; moving them is not a change."""
        state = state_of(tensors)
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
        # autocast would compute other features under the same key
        without_autocast = torch.autocast(device.type, enabled=False)
        with torch.no_grad(), without_autocast, in_evaluation_mode(self.encoder):
            found = self.encoder(**{name: value.to(device) for name, value in collate(inputs).items()})
        self.calls += len(inputs)
        features = found.features.cpu()
        names = [name for name in no_slots(self.encoder.medium) if name != "visual_mask"]
        return [
            {"features": row[: len(item["boxes"])].clone(), **{name: item[name] for name in names}}
            for row, item in zip(features, inputs, strict=True)
        ]


def _read_image(path: str | Path) -> Image.Image:
    return decode_image(read_image_bytes(path), str(path))


def _tensors_of(encoder: VisualEncoder) -> Sequence[Tensor]:
    return [*encoder.parameters(), *encoder.buffers()]


def state_of(tensors: Sequence[Tensor]) -> list[tuple[int, int]]:
    """Return address and version of each tensor, which change when weights do."""
    return [(tensor.data_ptr(), 0 if tensor.is_inference() else tensor._version) for tensor in tensors]


class Unreadable(NamedTuple):
    """A record with an image, video or sound that cannot be read, its name, and why."""

    id: str | None
    name: str
    reason: str


def fill_from_records(
    cached: CachedEncoder,
    records: Iterable[Record],
    *,
    missing_images: str = "skip",
    batch_size: int = 8,
    on_item: Callable[[], None] | None = None,
) -> list[Unreadable]:
    """Encode the images, videos or sounds of records that the cache does not have yet; return what cannot be read.

    Records are read lazily; those without the medium are ignored. ``on_item`` is called after each image, video or
    sound. With ``missing_images="error"`` the first one that cannot be read raises UmieError.
    """
    check_image_policy(missing_images)
    medium = cached.encoder.medium
    unreadable: list[Unreadable] = []
    pending: dict[int, tuple[Record, int]] = {}

    def refuse(index: int, error: UmieError) -> None:
        record, number = pending[index]
        if missing_images == "error":
            raise UmieError(f"record {record.id!r}: {error}; fix it, or set missing_images to 'skip'") from error
        unreadable.append(Unreadable(record.id, str(record.of(medium)[number]), str(error)))

    def items() -> Iterator[tuple[Any, Places]]:
        each = ((record, number) for record in records for number in range(len(record.of(medium))))
        for index, (record, number) in enumerate(each):
            pending[index] = record, number
            try:
                source = record.resolved(medium, number)
            except UmieError as error:  # the path leaves the image folder
                refuse(index, error)
                yield None, ()
            else:
                yield source, record.places_in(medium, number, cached.encoder.config.max_regions)

    def finish(index: int) -> None:
        del pending[index]
        if on_item is not None:
            on_item()

    cached.fill(items(), batch_size=batch_size, on_item=finish, on_error=refuse)
    return unreadable


def write_unreadable(path: str | Path, unreadable: Sequence[Unreadable]) -> None:
    """Write a JSONL file with one line per unreadable medium; an existing list is replaced even if there are none."""
    path = Path(path)
    if unreadable or path.exists():
        with atomic_write(path) as file:
            file.writelines(json_text(item._asdict()) + "\n" for item in unreadable)
