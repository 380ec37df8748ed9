"""``prepare_corpus``: read or draw data sets once, check every record and image, and write them."""

from __future__ import annotations

import hashlib
import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import umie
from umie import data as formats
from umie import tasks as all_tasks
from umie.audit.texts import normalize
from umie.checkpoints import is_intact, write_manifest
from umie.composition import resolve_parts
from umie.data.embedded import EMBEDDED
from umie.encoders import Preprocessor, build_preprocessor
from umie.errors import UmieError, at, check_keys
from umie.experiments.data_config import DataConfig, SetConfig
from umie.experiments.data_sets import Corpus, DataSet, Options, count_combinations, count_queries, hash_of
from umie.experiments.data_splits import check_content, check_files
from umie.files import atomic_write
from umie.images import decode_image, read_image_bytes
from umie.media import media_digest, open_clip, open_sound
from umie.records import Medium, Record, read_jsonl, record_to_json
from umie.records.model import combination_of
from umie.records.places import check_within
from umie.tasks import Task
from umie.tasks.labels import used_labels
from umie.types import SPLITS

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

    Paths under ``data`` are relative to ``root``. At least one set must have each of the ``splits``. All ``encoders``,
    names or mappings with ``name`` and options, must be able to use the images. ``on_item`` is called with a
    description of each step.

    Raises:
        UmieError: a key or format is unknown, a file cannot be read, a label is not in the schema, an image is missing
            or unreadable (with the policy ``error``), or no record is annotated for a task.
    """

    def place(name: str) -> Any:
        return nullcontext() if config.is_single else at(f"data set {name!r}")

    check_files(config, root)
    read: dict[str, _Files] = {}
    for name, one in config.sets.items():
        if not one.is_drawn:
            with place(name):
                read[name] = _read_files(one, root, splits, config.is_single)
    check_content(config, {name: one.splits for name, one in read.items()})
    if config.exclude_overlap:
        read = _without_overlap(read, config.exclude_overlap)
    training_texts = _texts(record for one in read.values() for record in one.splits.get("train", ()))
    media = _MediaChecks(_preprocessors(encoders), missing_images)
    sets: dict[str, DataSet] = {}
    for name, one in config.sets.items():
        prefix = "" if config.is_single else f"{name}: "

        def say(what: str, prefix: str = prefix) -> None:
            on_item(prefix + what)

        with place(name):
            if one.is_drawn:
                sets[name] = _embedded(one, output, splits, say)
            else:
                sets[name] = _checked_set(read[name], training_texts, media, root, output, splits, say)
    unused = [task for task in config.tasks if not any(task in one.tasks for one in sets.values())]
    if unused:
        raise UmieError(f"no data set is annotated for the task {unused[0]!r}: remove it from `tasks`")
    for split in splits:
        if not any(one.tasks_in(split) for one in sets.values()):
            raise UmieError(f"no data set has records for {split!r}: set {split} to a file in one of them")
    weights = {name: one.weight for name, one in config.sets.items()}
    return Corpus(sets, weights, config.sampling, config.is_single)


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
    everything = [record for records in splits.values() for record in records]
    tasks = config.tasks
    if not config.names_tasks:
        counts = count_queries(_built(tasks), everything)
        tasks = {name: options for name, options in tasks.items() if counts[name]}
        if not tasks:
            raise UmieError(f"none of its records is annotated for any of the tasks {', '.join(config.tasks)}")
    return _Files(config, splits, _label_schemas(tasks, splits.get("train"), everything))


def _read_split(kind: str, split: str, options: Mapping[str, Any], root: Path) -> list[Record]:
    folders: dict[str, Any] = {
        key: root / str(options[key]) for key in ("images", "regions") if options.get(key) is not None
    }
    for key, folder in folders.items():
        if not folder.is_dir():
            raise UmieError(f"data: {key} is {folder}: no such directory (paths are relative to {root})")
    path = root / str(options[split])
    limit = options.get("max_records")
    if isinstance(limit, dict):
        check_keys("split in max_records:", limit, SPLITS)
        limit = limit.get(split)
    if limit is not None and (type(limit) is not int or limit < 1):
        raise UmieError(
            f"data: max_records is {options['max_records']!r}: use a whole number of at least 1, or a mapping with one "
            "for each split"
        )
    extra: dict[str, Any] = {
        key: root / str(options[key]) if "Path" in annotation else options[key]
        for key, annotation in formats.format_options(kind).items()
        if options.get(key) is not None
    }
    records = itertools.islice(formats.read(kind, path, **folders, **extra), limit)
    return [
        record if record.id else replace(record, id=f"{path.name}, record {number}")
        for number, record in enumerate(records, start=1)
    ]


def _label_schemas(tasks: Options, training: Sequence[Record] | None, everything: Sequence[Record]) -> Options:
    """Fill in the labels of every task without labels: those used in the training records, most frequent first.

    Without a training split (None), they are the schema that the records specify, or else their labels.
    """
    schemas: dict[str, Mapping[str, Any]] = {}
    for name, options in tasks.items():
        if options.get("labels") is None:
            task = all_tasks.registry.build(name, **options)
            own = [record for record in (everything if training is None else training) if record.annotated_for(name)]
            named = (own[0].labels or {}).get(name, ()) if own and training is None else ()
            labels = list(named) or [label for label, _ in used_labels(task, own).most_common()]
            if not labels:
                raise UmieError(f"no training record has a {task.label_noun} for the task {name!r}")
            options = {**options, "labels": labels}
        schemas[name] = options
    return schemas


def _without_overlap(read: Mapping[str, _Files], splits: Sequence[str]) -> dict[str, _Files]:
    """Exclude every training record whose text occurs in one of these splits of any set."""
    held_out = _texts(record for one in read.values() for split in splits for record in one.splits.get(split, ()))
    kept = {}
    for name, one in read.items():
        before = one.splits.get("train", [])
        after = [record for record in before if normalize(record.text) not in held_out]
        changed = {**one.splits, "train": after} if "train" in one.splits else one.splits
        kept[name] = replace(one, splits=changed, num_excluded=len(before) - len(after))
    return kept


@dataclass
class _MediaChecks:
    """Checks of the media of all sets; each file is opened once."""

    preprocessors: Sequence[Preprocessor]  # their checks together tell whether all encoders can use an image
    policy: str  # for media that cannot be read
    # of each medium and file: its hash and duration (0 of an image), or why it is unreadable
    digests: dict[tuple[Medium, Path], tuple[bytes, float] | UmieError] = field(default_factory=dict)

    def usable(
        self, records: Iterable[Record], digest: Any, file: Path
    ) -> tuple[list[Record], dict[str, str], dict[str, int]]:
        """Return the records of a file that the policy keeps, the error of each unreadable medium, and combinations.

        The last are the numbers of records with each combination of text and readable media. ``digest`` is updated.
        """
        kept = []
        unreadable: dict[str, str] = {}
        combinations: Counter[str] = Counter()
        for record in records:
            readable: set[Medium] = set()
            is_kept = True
            for medium, number in record.numbered_media:
                try:
                    if medium == "image":
                        self._check(record, number, digest)
                    else:
                        self._check_medium(medium, record, digest)
                    readable.add(medium)
                except UmieError as error:
                    if self.policy == "error":
                        advice = "fix it, or set `missing_images` to `text_only` or `skip`"
                        place = "" if str(record.id).startswith(f"{file.name}, ") else f"{file}: "
                        raise UmieError(f"{place}record {record.id!r}: {error}; {advice}") from error
                    unreadable.setdefault(str(record.of(medium)[number]), str(error))
                    is_kept = is_kept and self.policy != "skip"
            if is_kept:
                kept.append(record)
                combinations[combination_of(record.text, readable)] += 1
        return kept, unreadable, dict(combinations)

    def _check_medium(self, medium: Medium, record: Record, digest: Any) -> None:
        """Check a video or a sound, and that its places are in it."""
        path, source = record.path(medium), record.resolved(medium)
        if path is None or (medium, path) not in self.digests:
            try:
                seconds = (open_sound(source) if medium == "audio" else open_clip(source, 1)).seconds
                found: tuple[bytes, float] | UmieError = media_digest(source).encode(), seconds
            except UmieError as error:
                found = error
            if path is not None:
                self.digests[medium, path] = found
        else:
            found = self.digests[medium, path]
        if isinstance(found, UmieError):
            raise found
        digest.update(found[0])
        with at(str(record.of(medium)[0])):
            check_within(medium, record.places(medium), found[1])

    def _check(self, record: Record, number: int, digest: Any) -> None:
        needs_pixels = any(map(_reads_pixels, self.preprocessors))
        path = record.path("image", number)
        if path is not None and ("image", path) not in self.digests and (needs_pixels or path.is_file()):
            try:
                data = read_image_bytes(path)
                if needs_pixels:
                    decode_image(data, str(path))
                self.digests["image", path] = hashlib.sha256(data).digest(), 0.0
            except UmieError as error:
                self.digests["image", path] = error
        found = self.digests.get(("image", path)) if path is not None else None
        if isinstance(found, UmieError):
            raise found
        digest.update(b"" if found is None else found[0])
        for preprocessor in self.preprocessors:
            regions = record.places_in("image", number, preprocessor.config.max_regions)
            if path is not None and _reads_pixels(preprocessor):
                preprocessor.slots(regions)
            else:
                preprocessor.check(record.resolved("image", number), regions)


def _preprocessors(encoders: Iterable[Any]) -> list[Preprocessor]:
    """Return the preprocessors of encoders, but only one of those that read pixels."""
    found: dict[str, Preprocessor] = {}
    for encoder in encoders:
        options = resolve_parts(encoder, "gated", "tiny")["encoder"]
        preprocessor: Any = build_preprocessor(options)
        found["pixels" if _reads_pixels(preprocessor) else hash_of(options)] = preprocessor
    return list(found.values())


def _reads_pixels(preprocessor: Preprocessor) -> bool:
    """Return whether it checks an image by decoding it, which is done once for all of them."""
    return type(preprocessor).check is Preprocessor.check


def _checked_set(
    read: _Files,
    training_texts: set[str],
    media: _MediaChecks,
    root: Path,
    output: Path,
    used: Sequence[str],
    on_item: OnItem,
) -> DataSet:
    """Check the labels, images and queries of a set, and write its records as JSONL."""
    splits = dict(read.splits)
    built = _built(read.tasks)
    unreadable: dict[str, dict[str, str]] = {}
    num_queries: dict[str, dict[str, int]] = {}
    num_combinations: dict[str, dict[str, int]] = {}
    digest = hashlib.sha256()
    for split, records in splits.items():
        on_item(f"checking {split}")
        for record in records:
            for task in built.values():
                if record.annotated_for(task.name):
                    try:
                        task.check(record)
                    except UmieError as error:
                        raise UmieError(
                            f"record {record.id!r}: {error} Fix the record, or list the label under `tasks`."
                        ) from error
        source = root / str(read.config.options[split])
        splits[split], unreadable[split], num_combinations[split] = media.usable(records, digest, source)
        if records and not splits[split]:
            raise UmieError(
                f"no record of {split!r} has media that can be read: {next(iter(unreadable[split].values()))}"
            )
        num_queries[split] = count_queries(built, splits[split])
    folders = {split: _image_folder(split, records) for split, records in splits.items()}
    for name, split in itertools.product(built if read.config.names_tasks else (), used):
        if split in splits and not num_queries[split][name]:
            raise UmieError(f"no record of {split!r} is annotated for the task {name!r}: remove it from `tasks`")
    lines = {split: "".join(record_to_json(record) + "\n" for record in records) for split, records in splits.items()}
    for text in lines.values():
        digest.update(text.encode())
    fingerprint = digest.hexdigest()[:16]
    files = {split: str(output / f"data-{fingerprint}" / f"{split}.jsonl") for split in splits}
    for split, path in files.items():
        with atomic_write(path) as file:
            file.write(lines[split])
    return DataSet(
        name=read.config.name,
        format=read.config.format,
        files=files,
        images=folders,
        tasks=read.tasks,
        num_records={split: len(records) for split, records in splits.items()},
        num_queries=num_queries,
        num_combinations=num_combinations,
        num_seen={
            split: sum(normalize(record.text) in training_texts for record in records)
            for split, records in splits.items()
            if split != "train"
        },
        num_excluded=read.num_excluded,
        unreadable=unreadable,
        fingerprint=fingerprint,
    )


def _image_folder(split: str, records: Iterable[Record]) -> str | None:
    """Return the image folder of the records of a split, or None if they have no images."""
    folders = {record.image_folder for record in records if record.media}
    if None in folders or len(folders) > 1:
        shown = ", ".join(sorted(str(folder) for folder in folders))
        raise UmieError(f"the records of {split!r} need one image_folder, but their reader set {shown}")
    return next(iter(folders), None)


def _embedded(one: SetConfig, output: Path, used: Sequence[str], on_item: OnItem) -> DataSet:
    kind = EMBEDDED[one.format]
    with at("data"):
        config = kind.config(**one.options)
        if getattr(config, "captions", False):
            raise UmieError("captions: use umie data synthetic-media --captions, and the format jsonl for its files")
    if min(getattr(config, split) for split in used) < kind.smallest:
        raise UmieError(f"data: each split that is used needs at least {kind.smallest} {kind.unit}, one of each kind")
    annotated = kind.ceilings(config, ())
    missing = [name for name in one.tasks if name not in annotated]
    if missing and (one.names_tasks or len(missing) == len(one.tasks)):
        raise UmieError(f"data: none of its records is annotated for the task {missing[0]!r}: remove it from `tasks`")
    tasks = {
        name: {"labels": list(kind.labels[name]), **given} for name, given in one.tasks.items() if name in annotated
    }
    fingerprint = hash_of({one.format: asdict(config), "umie": umie.__version__, "drawn": kind.version})
    folder = output / f"data-{fingerprint}"
    files = {split: str(folder / f"{split}.jsonl") for split in SPLITS}
    if not is_intact(folder):
        on_item("drawing the embedded data set")
        kind.write(folder, config)
        write_manifest(folder, [f"{split}.jsonl" for split in SPLITS])
    built = _built(tasks)
    grounded = [name for name, task in built.items() if task.config.grounded]
    known = kind.ceilings(config, grounded)
    records = {
        split: list(read_jsonl(path, images=folder)) if getattr(config, split) else [] for split, path in files.items()
    }
    return DataSet(
        name=one.name,
        format=one.format,
        files=files,
        images=dict.fromkeys(SPLITS, str(folder)),
        tasks=tasks,
        ceilings={name: known[name] for name in tasks},
        ceilings_by_combination=kind.ceilings_by_combination(config, grounded),
        num_records={split: len(own) for split, own in records.items()},
        num_queries={split: count_queries(built, own) for split, own in records.items()},
        num_combinations={split: count_combinations(own) for split, own in records.items()},
        fingerprint=fingerprint,
    )


def _built(tasks: Options) -> dict[str, Task[Any]]:
    return {name: all_tasks.registry.build(name, **options) for name, options in tasks.items()}


def _texts(records: Iterable[Record]) -> set[str]:
    """Return the normalized texts of the records, by which duplicates are recognized."""
    return {normalize(record.text) for record in records if record.text.strip()}
