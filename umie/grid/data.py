"""The data of a grid: read or drawn once, checked line by line and picture by picture, then handed to the cells."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import umie
from umie import data as formats
from umie import tasks as all_tasks
from umie.data.synthetic import LABELS, SPLITS, SyntheticConfig, ceilings, write_synthetic
from umie.encoders import Preprocessor, build_preprocessor
from umie.errors import UmieError, check_keys
from umie.files import atomic_write
from umie.grid.config import GridConfig
from umie.grid.plan import hash_of, without_label
from umie.records import Record, read_jsonl, record_to_json

OnItem = Callable[[str], None]


@dataclass(frozen=True)
class GridData:
    """Checked data, as files that the cells read.

    Args:
        files: the JSONL file of each split.
        images: folder of each split's pictures; None where they are given by paths of their own.
        tasks: name and options of each task, with its label schema filled in.
        ceilings: of text alone, by task, where the distribution is known.
        is_synthetic: whether this is the embedded data set.
        num_records: of each split.
        num_pictures: records of each split with a picture that can be read.
        unreadable: for each split, the pictures that cannot be read, with the reason; its records are trained on and
            scored as text alone, or left out, as the grid's policy says.
        num_seen: records of each split whose text stands in the training split too, where that was counted.
        fingerprint: of all texts, annotations and pictures.
    """

    files: Mapping[str, str]
    images: Mapping[str, str | None]
    tasks: Mapping[str, Mapping[str, Any]]
    ceilings: Mapping[str, float]
    is_synthetic: bool
    num_records: Mapping[str, int]
    num_pictures: Mapping[str, int]
    num_seen: Mapping[str, int]
    unreadable: Mapping[str, Mapping[str, str]]
    fingerprint: str

    def read(self, split: str) -> list[Record]:
        """Return the records of a split."""
        return list(read_jsonl(self.files[split], images=self.images[split]))


def prepare_data(grid: GridConfig, root: Path, output: Path, on_item: OnItem = lambda what: None) -> GridData:
    """Read or draw the grid's data, check all of it, and write it below ``output``.

    Args:
        grid: names the data.
        root: folder that relative paths of ``data`` start from.
        output: the grid's output folder.
        on_item: called with a word for each step, to show progress.

    Raises:
        UmieError: an unknown key or format, a file that cannot be read, a label outside the schema, a picture
            that is missing or cannot be read (under the policy ``error``), a record without an annotation.
    """
    options = dict(grid.data)
    kind = options.pop("format")
    if kind == "synthetic":
        return _synthetic(grid, options, output, on_item)
    splits = {split: _read_split(kind, split, options, root) for split in SPLITS if options.get(split) is not None}
    for split in ("train", grid.evaluation.split):
        if not splits.get(split):
            raise UmieError(f"data has no records for {split!r}: give its file")
    tasks = _label_schemas(grid.tasks, splits["train"])
    unreadable: dict[str, dict[str, str]] = {}
    digest = hashlib.sha256()
    checks = _picture_checks(grid)
    for split, records in splits.items():
        on_item(f"checking {split}")
        _check_labels(tasks, records)
        splits[split], unreadable[split] = _check_pictures(records, checks, grid.missing_pictures, digest)
        if not splits[split]:
            raise UmieError(
                f"no record of {split!r} has a picture that can be read: {next(iter(unreadable[split].values()))}"
            )
    for name, task_options in tasks.items():
        task = all_tasks.registry.build(name, **task_options)
        for split in ("train", grid.evaluation.split):
            if not any(record.annotated_for(name) and task.queries(record) for record in splits[split]):
                raise UmieError(f"no record of {split!r} is annotated for the task {name!r}: leave it out of `tasks`")
    lines = {split: "".join(record_to_json(record) + "\n" for record in records) for split, records in splits.items()}
    for split in splits:
        digest.update(lines[split].encode())
    fingerprint = digest.hexdigest()[:16]
    folder = output / f"data-{fingerprint}"
    files = {split: str(folder / f"{split}.jsonl") for split in splits}
    for split in splits:
        with atomic_write(files[split]) as file:
            file.write(lines[split])
    trained = {record.text for record in splits["train"]}
    images = {
        split: next((record.image_folder for record in records if record.image_folder), None)
        for split, records in splits.items()
    }
    return GridData(
        files=files,
        images=images,
        tasks=tasks,
        ceilings={},
        is_synthetic=False,
        num_records={split: len(records) for split, records in splits.items()},
        num_pictures={
            split: sum(record.image is not None and _name(record) not in unreadable[split] for record in records)
            for split, records in splits.items()
        },
        num_seen={
            split: sum(record.text in trained for record in records)
            for split, records in splits.items()
            if split != "train"
        },
        unreadable=unreadable,
        fingerprint=fingerprint,
    )


def _synthetic(grid: GridConfig, options: dict[str, Any], output: Path, on_item: OnItem) -> GridData:
    try:
        config = SyntheticConfig(**options)
    except UmieError as error:
        raise UmieError(f"data: {error}") from error
    if min(config.train, getattr(config, grid.evaluation.split)) < 3:
        raise UmieError("data: each split that is used needs 3 records or more, one of each kind")
    wanted = {name: {"labels": list(LABELS[name]), **given} for name, given in grid.tasks.items()}
    fingerprint = hash_of({"synthetic": asdict(config), "umie": umie.__version__})
    folder = output / f"data-{fingerprint}"
    complete = folder / "complete.json"
    if not complete.exists():
        on_item("drawing the embedded data set")
        write_synthetic(folder, config)
        with atomic_write(complete) as file:
            json.dump(options, file)
    sizes = {split: getattr(config, split) for split in SPLITS}
    known = ceilings(config)
    return GridData(
        files={split: str(folder / f"{split}.jsonl") for split in SPLITS},
        images=dict.fromkeys(SPLITS, str(folder)),
        tasks=wanted,
        ceilings={name: known[name] for name in grid.tasks},
        is_synthetic=True,
        num_records=sizes,
        num_pictures=sizes,
        num_seen={},
        unreadable={},
        fingerprint=fingerprint,
    )


def _read_split(kind: str, split: str, options: Mapping[str, Any], root: Path) -> list[Record]:
    folders = {key: root / str(options[key]) for key in ("images", "regions") if options.get(key) is not None}
    for key, folder in folders.items():
        if not folder.is_dir():
            raise UmieError(f"data: {key} is {folder}: no such folder (relative paths start from {root})")
    path = root / str(options[split])
    limits = options.get("max_records")
    if isinstance(limits, dict):
        check_keys("split in max_records:", limits, SPLITS)
    limit = limits.get(split) if isinstance(limits, dict) else limits
    if limit is not None and (not isinstance(limit, int) or isinstance(limit, bool) or limit < 1):
        raise UmieError(f"data: max_records is {limits!r}: give a whole number, 1 or more, or one for each split")
    read: Any = formats.registry.get(kind)
    records = itertools.islice(read(path, **folders), limit)
    return [
        record if record.id else replace(record, id=f"{path.name}, record {number}")
        for number, record in enumerate(records, start=1)
    ]


def _label_schemas(tasks: Mapping[str, Mapping[str, Any]], records: Iterable[Record]) -> dict[str, Mapping[str, Any]]:
    """Fill in the labels of every task that names none: those that its training records use, most frequent first."""
    schemas: dict[str, Mapping[str, Any]] = {}
    for name, options in tasks.items():
        if options.get("labels") is None:
            task = all_tasks.registry.build(name, **options)
            used = Counter(
                label for record in records if record.annotated_for(name) for label in task.used_labels(record)
            )
            if not used:
                raise UmieError(f"no training record carries a {task.label_noun} for the task {name!r}")
            options = {**options, "labels": [label for label, _ in used.most_common()]}
        schemas[name] = options
    return schemas


def _check_labels(tasks: Mapping[str, Mapping[str, Any]], records: Iterable[Record]) -> None:
    built = [all_tasks.registry.build(name, **options) for name, options in tasks.items()]
    for record in records:
        for task in built:
            if record.annotated_for(task.name):
                try:
                    task.check(record)
                except UmieError as error:
                    raise UmieError(
                        f"record {record.id!r}: {error} Mend the record, or list the label under `tasks`."
                    ) from error


def _picture_checks(grid: GridConfig) -> list[Preprocessor]:
    """Return preprocessors that tell together whether a record's picture is fit for every encoder of the grid."""
    from umie.composition import resolve_parts

    checks: dict[str, Preprocessor] = {}
    for encoder in grid.encoder:
        options = resolve_parts(without_label(encoder), "gated", "tiny")["encoder"]
        preprocessor = build_preprocessor(options)
        looks_at_pixels = type(preprocessor).check is Preprocessor.check
        checks["pixels" if looks_at_pixels else hash_of(options)] = preprocessor
    return list(checks.values())


def _check_pictures(
    records: Iterable[Record], checks: Iterable[Preprocessor], policy: str, digest: Any
) -> tuple[list[Record], dict[str, str]]:
    """Return the records that the policy keeps, and why pictures cannot be read."""
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
                        f"record {record.id!r}: {error}; mend it, or set `missing_pictures` to `text_only` or `skip`"
                    ) from error
                unreadable[_name(record)] = str(error)
                if policy == "skip":
                    continue
        kept.append(record)
    return kept, unreadable


def _name(record: Record) -> str:
    return str(record.image)
