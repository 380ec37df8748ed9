"""Checks of records before training: labels, queries, images, and texts that occur in several splits."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from umie import tasks as all_tasks
from umie.audit.texts import normalize
from umie.composition import resolve_parts
from umie.encoders import Preprocessor, build_preprocessor
from umie.errors import UmieError
from umie.experiments.data_sets import Options, hash_of
from umie.images import decode_image, read_image_bytes
from umie.records import Record
from umie.tasks import Task
from umie.tasks.labels import used_labels


def label_schemas(
    tasks: Options, training: Sequence[Record] | None, others: Sequence[Record] = ()
) -> dict[str, Mapping[str, Any]]:
    """Fill in the labels of every task without labels: those used in the training records, most frequent first.

    Args:
        tasks: name and options of each task.
        training: the training records; None if the set has no training split.
        others: records to use if there is no training split: the schema that they specify, or else their labels.

    Raises:
        UmieError: no record has a label of a task.
    """
    schemas: dict[str, Mapping[str, Any]] = {}
    for name, options in tasks.items():
        if options.get("labels") is None:
            task = all_tasks.registry.build(name, **options)
            records = [record for record in (others if training is None else training) if record.annotated_for(name)]
            named = (records[0].labels or {}).get(name, ()) if records and training is None else ()
            labels = list(named) or [label for label, _ in used_labels(task, records).most_common()]
            if not labels:
                raise UmieError(f"no training record has a {task.label_noun} for the task {name!r}")
            options = {**options, "labels": labels}
        schemas[name] = options
    return schemas


def check_labels(tasks: Mapping[str, Task[Any]], records: Iterable[Record]) -> None:
    """Raise UmieError for the first record with a label outside its task's schema."""
    for record in records:
        for task in tasks.values():
            if record.annotated_for(task.name):
                try:
                    task.check(record)
                except UmieError as error:
                    raise UmieError(
                        f"record {record.id!r}: {error} Fix the record, or list the label under `tasks`."
                    ) from error


def count_queries(tasks: Mapping[str, Task[Any]], records: Iterable[Record]) -> dict[str, int]:
    """Return the number of queries of each task about the records."""
    counts = dict.fromkeys(tasks, 0)
    for record in records:
        for name, task in tasks.items():
            if record.annotated_for(name):
                counts[name] += len(task.queries(record))
    return counts


Digests = dict[Path, bytes | UmieError]  # by image file, the hash of its bytes, or why it cannot be read


def image_preprocessors(encoders: Iterable[Any]) -> list[Preprocessor]:
    """Return preprocessors whose checks together tell whether all given encoders can use an image."""
    found: dict[str, Preprocessor] = {}
    for encoder in encoders:
        options = resolve_parts(encoder, "gated", "tiny")["encoder"]
        preprocessor = build_preprocessor(options)
        found["pixels" if _reads_pixels(preprocessor) else hash_of(options)] = preprocessor
    return list(found.values())


def check_images(
    records: Iterable[Record], preprocessors: Sequence[Preprocessor], policy: str, digest: Any, digests: Digests
) -> tuple[list[Record], dict[str, str]]:
    """Return the records that the policy keeps, and the error of each unreadable image; update ``digest`` with images.

    Args:
        records: of one split.
        preprocessors: see ``image_preprocessors``.
        policy: for images that cannot be read.
        digest: is updated with the bytes of the images.
        digests: of the images that were read before; each file is opened once for all splits and data sets.

    Raises:
        UmieError: an image cannot be read and the policy is ``error``.
    """
    kept = []
    unreadable: dict[str, str] = {}
    needs_pixels = any(_reads_pixels(preprocessor) for preprocessor in preprocessors)
    for record in records:
        if record.image is not None:
            try:
                path = record.image_path()
                if path is not None and path not in digests and (needs_pixels or path.is_file()):
                    digests[path] = _digest_of(path, needs_pixels)
                found = None if path is None else digests.get(path)
                if isinstance(found, UmieError):
                    raise found
                digest.update(found or b"")
                for preprocessor in preprocessors:
                    if path is not None and _reads_pixels(preprocessor):
                        preprocessor.slots(record.regions)
                    else:
                        preprocessor.check(record.image if path is None else path, record.regions)
            except UmieError as error:
                if policy == "error":
                    raise UmieError(
                        f"record {record.id!r}: {error}; fix it, or set `missing_images` to `text_only` or `skip`"
                    ) from error
                unreadable[str(record.image)] = str(error)
                if policy == "skip":
                    continue
        kept.append(record)
    return kept, unreadable


def _reads_pixels(preprocessor: Preprocessor) -> bool:
    """Return whether it checks an image by decoding it, which is done once for all of them."""
    return type(preprocessor).check is Preprocessor.check


def _digest_of(path: Path, needs_pixels: bool) -> bytes | UmieError:
    """Return the hash of an image file, or the error of reading its pixels; the file is opened once."""
    try:
        data = read_image_bytes(path)
        if needs_pixels:
            decode_image(data, str(path))
        return hashlib.sha256(data).digest()
    except UmieError as error:
        return error


def texts_of(records: Iterable[Record]) -> set[str]:
    """Return the normalized texts of the records, by which duplicates are recognized."""
    return {normalize(record.text) for record in records if record.text.strip()}


def num_among(records: Iterable[Record], texts: set[str]) -> int:
    """Return the number of records that have one of these texts."""
    return sum(normalize(record.text) in texts for record in records)
