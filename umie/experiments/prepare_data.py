"""``prepare_corpus``: read or draw data sets once, check every record and image, and write them."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import umie
from umie import data as formats
from umie import tasks as all_tasks
from umie.audit.texts import normalize
from umie.data.synthetic import LABELS, SPLITS, SyntheticConfig, ceilings, write_synthetic
from umie.encoders import Preprocessor
from umie.errors import UmieError, at, check_keys
from umie.experiments.data_checks import (
    Digests,
    check_images,
    check_labels,
    count_queries,
    image_preprocessors,
    label_schemas,
    num_among,
    texts_of,
)
from umie.experiments.data_config import DataConfig, SetConfig
from umie.experiments.data_sets import Corpus, DataSet, hash_of
from umie.files import atomic_write
from umie.records import Record, read_jsonl, record_to_json

OnItem = Callable[[str], None]


@dataclass(frozen=True)
class _Files:
    """The records of a data set by split, before images are checked."""

    config: SetConfig
    splits: dict[str, list[Record]]
    tasks: Mapping[str, Mapping[str, Any]]
    num_excluded: int = 0


def prepare_corpus(
    config: DataConfig,
    *,
    root: Path,
    output: Path,
    splits: Sequence[str] = ("train", "test"),
    missing_images: str = "error",
    encoders: Sequence[Any] = ("tiny",),
    on_item: OnItem = lambda what: None,
) -> Corpus:
    """Read or draw data sets, check them, and write copies to ``output``. Runs read only these copies.

    Args:
        config: one or several data sets; see ``read_data_config``.
        root: the directory that paths under ``data`` are relative to.
        output: the directory to write to; each set gets its own subdirectory.
        splits: the splits that are used; at least one set must have each of them.
        missing_images: ``error``, ``text_only`` or ``skip``.
        encoders: the encoders that must be able to use the images: names, or mappings with ``name`` and options.
        on_item: called with a description of each step, to show progress.

    Raises:
        UmieError: a key or format is unknown, a file cannot be read, a label is not in the schema, an image is missing
            or unreadable (with the policy ``error``), or no record is annotated for a task.
    """
    read: dict[str, _Files] = {}
    for name, one in config.sets.items():
        if one.format != "synthetic":
            with _place(config, name):
                read[name] = _read_files(one, root, splits, config.is_single)
    if config.exclude_overlap:
        read = _without_overlap(read, config.exclude_overlap)
    training_texts = texts_of(record for one in read.values() for record in one.splits.get("train", ()))
    preprocessors = image_preprocessors(encoders)
    digests: Digests = {}
    sets: dict[str, DataSet] = {}
    for name, one in config.sets.items():
        prefix = "" if config.is_single else f"{name}: "

        def say(what: str, prefix: str = prefix) -> None:
            on_item(prefix + what)

        with _place(config, name):
            if one.format == "synthetic":
                sets[name] = _synthetic(one, output, splits, say)
            else:
                sets[name] = _checked_set(
                    read[name], training_texts, preprocessors, digests, missing_images, output, splits, say
                )
    unused = [task for task in config.tasks if not any(task in one.tasks for one in sets.values())]
    if unused:
        raise UmieError(f"no data set is annotated for the task {unused[0]!r}: remove it from `tasks`")
    for split in splits:
        if not any(one.tasks_in(split) for one in sets.values()):
            raise UmieError(f"no data set has records for {split!r}: set {split} to a file in one of them")
    return Corpus(
        sets=sets,
        weights={name: one.weight for name, one in config.sets.items()},
        sampling=config.sampling,
        is_single=config.is_single,
    )


def _place(config: DataConfig, name: str) -> Any:
    return nullcontext() if config.is_single else at(f"data set {name!r}")


def _read_files(config: SetConfig, root: Path, used: Sequence[str], is_single: bool) -> _Files:
    splits = {
        split: _read_split(config.format, split, config.options, root)
        for split in SPLITS
        if config.options.get(split) is not None
    }
    needed = used if is_single else [split for split in used if split in splits]
    for split in needed:
        if not splits.get(split):
            raise UmieError(f"data has no records for {split!r}: set {split} to a file with records")
    if not splits:
        raise UmieError(f"it has no files: set at least one of {', '.join(SPLITS)}")
    chosen = config.tasks
    if not config.names_tasks:
        built = {name: all_tasks.registry.build(name, **options) for name, options in config.tasks.items()}
        counts = count_queries(built, itertools.chain.from_iterable(splits.values()))
        chosen = {name: options for name, options in config.tasks.items() if counts[name]}
        if not chosen:
            raise UmieError(f"none of its records is annotated for any of the tasks {', '.join(config.tasks)}")
    others = [record for records in splits.values() for record in records]
    return _Files(config, splits, label_schemas(chosen, splits.get("train"), others))


def _without_overlap(read: Mapping[str, _Files], splits: Sequence[str]) -> dict[str, _Files]:
    """Exclude every training record whose text occurs in one of these splits of any set."""
    held_out = texts_of(record for one in read.values() for split in splits for record in one.splits.get(split, ()))
    kept = {}
    for name, one in read.items():
        before = one.splits.get("train", [])
        after = [record for record in before if normalize(record.text) not in held_out]
        changed = {**one.splits, "train": after} if "train" in one.splits else one.splits
        kept[name] = replace(one, splits=changed, num_excluded=len(before) - len(after))
    return kept


def _checked_set(
    read: _Files,
    training_texts: set[str],
    preprocessors: Sequence[Preprocessor],
    digests: Digests,
    missing_images: str,
    output: Path,
    used: Sequence[str],
    on_item: OnItem,
) -> DataSet:
    """Check the labels, images and queries of a set, and write its records as JSONL."""
    splits = dict(read.splits)
    built = {name: all_tasks.registry.build(name, **options) for name, options in read.tasks.items()}
    unreadable: dict[str, dict[str, str]] = {}
    digest = hashlib.sha256()
    for split, records in splits.items():
        on_item(f"checking {split}")
        check_labels(built, records)
        splits[split], unreadable[split] = check_images(records, preprocessors, missing_images, digest, digests)
        if records and not splits[split]:
            raise UmieError(
                f"no record of {split!r} has an image that can be read: {next(iter(unreadable[split].values()))}"
            )
    images = {split: _image_folder(split, records) for split, records in splits.items()}
    num_queries = {split: count_queries(built, records) for split, records in splits.items()}
    if read.config.names_tasks:
        for task in built:
            for split in used:
                if split in splits and not num_queries[split][task]:
                    raise UmieError(
                        f"no record of {split!r} is annotated for the task {task!r}: remove it from `tasks`"
                    )
    lines = {split: "".join(record_to_json(record) + "\n" for record in records) for split, records in splits.items()}
    for split in splits:
        digest.update(lines[split].encode())
    fingerprint = digest.hexdigest()[:16]
    folder = output / f"data-{fingerprint}"
    files = {split: str(folder / f"{split}.jsonl") for split in splits}
    for split in splits:
        with atomic_write(files[split]) as file:
            file.write(lines[split])
    return DataSet(
        name=read.config.name,
        format=read.config.format,
        files=files,
        images=images,
        tasks=read.tasks,
        ceilings={},
        is_synthetic=False,
        num_records={split: len(records) for split, records in splits.items()},
        num_queries=num_queries,
        num_images={
            split: sum(record.image is not None and str(record.image) not in unreadable[split] for record in records)
            for split, records in splits.items()
        },
        num_seen={split: num_among(records, training_texts) for split, records in splits.items() if split != "train"},
        num_excluded=read.num_excluded,
        unreadable=unreadable,
        fingerprint=fingerprint,
    )


def _image_folder(split: str, records: Iterable[Record]) -> str | None:
    """Return the image folder of the records of a split, or None if they have no images."""
    folders = {record.image_folder for record in records if record.image is not None}
    if None in folders or len(folders) > 1:
        shown = ", ".join(sorted(str(folder) for folder in folders))
        raise UmieError(f"the records of {split!r} need one image_folder, but their reader set {shown}")
    return next(iter(folders), None)


def _synthetic(one: SetConfig, output: Path, used: Sequence[str], on_item: OnItem) -> DataSet:
    try:
        config = SyntheticConfig(**one.options)
    except UmieError as error:
        raise UmieError(f"data: {error}") from error
    sizes = {split: getattr(config, split) for split in SPLITS}
    if min(sizes[split] for split in used) < 3:
        raise UmieError("data: each split that is used needs at least 3 records, one of each kind")
    tasks = {name: {"labels": list(LABELS[name]), **given} for name, given in one.tasks.items()}
    fingerprint = hash_of({"synthetic": asdict(config), "umie": umie.__version__})
    folder = output / f"data-{fingerprint}"
    complete = folder / "complete.json"
    if not complete.exists():
        on_item("drawing the embedded data set")
        write_synthetic(folder, config)
        with atomic_write(complete) as file:
            json.dump(dict(one.options), file)
    files = {split: str(folder / f"{split}.jsonl") for split in SPLITS}
    built = {name: all_tasks.registry.build(name, **options) for name, options in tasks.items()}
    known = ceilings(config)
    return DataSet(
        name=one.name,
        format="synthetic",
        files=files,
        images=dict.fromkeys(SPLITS, str(folder)),
        tasks=tasks,
        ceilings={name: known[name] for name in tasks},
        is_synthetic=True,
        num_records=sizes,
        num_queries={
            split: count_queries(built, read_jsonl(path, images=folder)) if sizes[split] else dict.fromkeys(tasks, 0)
            for split, path in files.items()
        },
        num_images=sizes,
        num_seen={},
        num_excluded=0,
        unreadable={},
        fingerprint=fingerprint,
    )


def _read_split(kind: str, split: str, options: Mapping[str, Any], root: Path) -> list[Record]:
    folders: dict[str, Any] = {
        key: root / str(options[key]) for key in ("images", "regions") if options.get(key) is not None
    }
    for key, folder in folders.items():
        if not folder.is_dir():
            raise UmieError(f"data: {key} is {folder}: no such directory (paths are relative to {root})")
    path = root / str(options[split])
    limits = options.get("max_records")
    if isinstance(limits, dict):
        check_keys("split in max_records:", limits, SPLITS)
    limit = limits.get(split) if isinstance(limits, dict) else limits
    if limit is not None and (not isinstance(limit, int) or isinstance(limit, bool) or limit < 1):
        raise UmieError(
            f"data: max_records is {limits!r}: use a whole number of at least 1, or a mapping with one for each split"
        )
    extra: dict[str, Any] = {
        key: root / str(options[key]) if "Path" in annotation else options[key]
        for key, annotation in formats.format_options(kind).items()
        if options.get(key) is not None
    }
    records: Iterable[Record] = itertools.islice(formats.read(kind, path, **folders, **extra), limit)
    return [
        record if record.id else replace(record, id=f"{path.name}, record {number}")
        for number, record in enumerate(records, start=1)
    ]
