"""What is checked in records before anything is trained: labels, queries, images, texts that stand in two splits."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from umie import tasks as all_tasks
from umie.audit.texts import normalize
from umie.composition import resolve_parts
from umie.encoders import Preprocessor, build_preprocessor
from umie.errors import UmieError
from umie.experiments.data_sets import Options, hash_of
from umie.records import Record
from umie.tasks import Task
from umie.tasks.labels import used_labels


def label_schemas(
    tasks: Options, training: Sequence[Record] | None, others: Sequence[Record] = ()
) -> dict[str, Mapping[str, Any]]:
    """Fill in the labels of every task that names none: those that its training records use, most frequent first.

    Args:
        tasks: name and options of each task.
        training: the training records; None where the set has none.
        others: the records that stand in for them then: the schema that they name, or else the labels they use.

    Raises:
        UmieError: there is no label of a task.
    """
    schemas: dict[str, Mapping[str, Any]] = {}
    for name, options in tasks.items():
        if options.get("labels") is None:
            task = all_tasks.registry.build(name, **options)
            records = [record for record in (others if training is None else training) if record.annotated_for(name)]
            named = (records[0].labels or {}).get(name, ()) if records and training is None else ()
            labels = list(named) or [label for label, _ in used_labels(task, records).most_common()]
            if not labels:
                raise UmieError(f"no training record carries a {task.label_noun} for the task {name!r}")
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
                        f"record {record.id!r}: {error} Mend the record, or list the label under `tasks`."
                    ) from error


def count_queries(tasks: Mapping[str, Task[Any]], records: Iterable[Record]) -> dict[str, int]:
    """Return how many queries each task asks about the records."""
    counts = dict.fromkeys(tasks, 0)
    for record in records:
        for name, task in tasks.items():
            if record.annotated_for(name):
                counts[name] += len(task.queries(record))
    return counts


def image_checks(encoders: Iterable[Any]) -> list[Preprocessor]:
    """Return preprocessors that tell together whether a record's image is fit for every one of some encoders."""
    checks: dict[str, Preprocessor] = {}
    for encoder in encoders:
        options = resolve_parts(encoder, "gated", "tiny")["encoder"]
        preprocessor = build_preprocessor(options)
        looks_at_pixels = type(preprocessor).check is Preprocessor.check
        checks["pixels" if looks_at_pixels else hash_of(options)] = preprocessor
    return list(checks.values())


def check_images(
    records: Iterable[Record], checks: Sequence[Preprocessor], policy: str, digest: Any
) -> tuple[list[Record], dict[str, str]]:
    """Return the records that the policy keeps, and why images cannot be read; ``digest`` takes the images in.

    Raises:
        UmieError: an image cannot be read, and the policy is ``error``.
    """
    kept = []
    unreadable: dict[str, str] = {}
    for record in records:
        if record.image is not None:
            try:
                path = record.image_path()
                for check in checks:
                    check.check(record.image if path is None else path, record.regions)
                if path is not None and path.is_file():
                    digest.update(path.read_bytes())
            except UmieError as error:
                if policy == "error":
                    raise UmieError(
                        f"record {record.id!r}: {error}; mend it, or set `missing_images` to `text_only` or `skip`"
                    ) from error
                unreadable[str(record.image)] = str(error)
                if policy == "skip":
                    continue
        kept.append(record)
    return kept, unreadable


def texts_of(records: Iterable[Record]) -> set[str]:
    """Return the records' texts, as copies of them are recognized: without white space, case and links."""
    return {normalize(record.text) for record in records if record.text.strip()}


def num_among(records: Iterable[Record], texts: set[str]) -> int:
    """Return how many records have one of these texts."""
    return sum(normalize(record.text) in texts for record in records)
