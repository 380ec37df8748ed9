"""DataSet and Corpus: descriptions of checked data files that can be sent to other processes as JSON."""

from __future__ import annotations

import hashlib
import json
import random
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from umie import tasks as all_tasks
from umie.errors import UmieError
from umie.records import MEDIA, Medium, Record, read_jsonl
from umie.records.places import LETTERS
from umie.tasks import Task
from umie.training.config import Sampling

NOTABLE_OVERLAP = 0.05  # published data sets share a few texts between their splits
Options = Mapping[str, Mapping[str, Any]]  # options of each task, by name


@dataclass(frozen=True)
class DataSet:
    """A checked data set: runs read the checked copies of its records, never the original files."""

    name: str
    format: str  # the original format, or a name from EMBEDDED
    files: Mapping[str, str]  # the checked copy of each split (JSONL)
    images: Mapping[str, str | None]  # the image directory of each split; None if the split has no images
    tasks: Options  # with the label schema of this set
    num_records: Mapping[str, int]  # by split
    num_queries: Mapping[str, Mapping[str, int]]  # by split and task
    # by split and combination of text and readable media (T+I, ...), number of records; "" for neither
    num_combinations: Mapping[str, Mapping[str, int]]
    fingerprint: str  # hash of all texts, annotations and images
    ceilings: Mapping[str, float] = field(default_factory=dict)  # by task, best F1 without images, if it is known
    # by combination of text and media, task, and what of it is seen, best F1 if it is known
    ceilings_by_combination: Mapping[str, Mapping[str, Mapping[str, float]]] = field(default_factory=dict)
    num_seen: Mapping[str, int] = field(default_factory=dict)  # by split, records whose text occurs in a training split
    num_excluded: int = 0  # number of training records excluded because their text occurs in an evaluation split
    # by split and image, why; such records are used without the image or skipped, as missing_images says
    unreadable: Mapping[str, Mapping[str, str]] = field(default_factory=dict)

    @property
    def num_images(self) -> dict[str, int]:
        """The number of records in each split with a readable image."""
        return {split: self.num_with(split, ["image"]) for split in self.num_combinations}

    def num_with(self, split: str, media: Collection[Medium] = MEDIA) -> int:
        """Return the number of records of a split with at least one readable medium of these."""
        letters = {LETTERS[medium] for medium in media}
        counts = self.num_combinations.get(split, {})
        return sum(number for name, number in counts.items() if not letters.isdisjoint(name.split("+")))

    def read(self, split: str, images: str = "own") -> list[Record]:
        """Return the records of a split, with their own images or "shuffled" (see ``with_shuffled_images``)."""
        records = list(read_jsonl(self.files[split], images=self.images[split]))
        if images == "own":
            return records
        keeps_regions = any(task.names_places for task in self.built().values())
        return with_shuffled_images(records, keeps_regions=keeps_regions)

    def built(self, options: Options | None = None) -> dict[str, Task[Any]]:
        """Return the tasks with the label schemas of this set; ``options``, by task, override those of the set."""
        return {
            name: all_tasks.registry.build(name, **{**given, **(options or {}).get(name, {})})
            for name, given in self.tasks.items()
        }

    def overlap(self) -> list[str]:
        """Return a sentence about each split many of whose texts also occur in a training split."""
        return [
            f"{count} of {self.num_records[split]} texts of {split} also occur in training; exclude_overlap: true "
            "excludes them there"
            for split, count in self.num_seen.items()
            if count > NOTABLE_OVERLAP * self.num_records[split]
        ]

    def tasks_in(self, split: str) -> list[str]:
        """Return the tasks that have queries in a split."""
        return [name for name, count in self.num_queries.get(split, {}).items() if count]


@dataclass(frozen=True)
class Corpus:
    """The data sets of a config, by name, and the factor on the share of each in training.

    If there is a single one, tables show tasks without its name.
    """

    sets: Mapping[str, DataSet]
    weights: Mapping[str, float]
    sampling: Sampling = field(default_factory=Sampling)
    is_single: bool = True

    def to_json(self) -> dict[str, Any]:
        """Return the corpus as plain data for another process."""
        return {**asdict(self), "sampling": self.sampling.model_dump()}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Corpus:
        """Return the corpus that ``to_json`` was called on."""
        sets = {name: DataSet(**given) for name, given in value["sets"].items()}
        return cls(**{**value, "sets": sets, "sampling": Sampling(**value["sampling"])})

    @property
    def fingerprint(self) -> str:
        """A hash of everything that training on the corpus depends on, except for the task options of a single set."""
        if self.is_single:
            (one,) = self.sets.values()
            return one.fingerprint
        sets = [[name, one.fingerprint, list(one.tasks.items()), self.weights[name]] for name, one in self.sets.items()]
        return hash_of([sets, self.sampling.model_dump(), self.is_single])

    @property
    def has_only_images(self) -> bool:
        """Whether no record has a readable sound or video, so that reports speak of images only."""
        sets = self.sets.values()
        return not any(one.num_with(split, ["audio", "video"]) for one in sets for split in one.num_records)

    @property
    def tasks(self) -> list[str]:
        """The names of the tasks of all sets, in order of first appearance."""
        return list(dict.fromkeys(task for one in self.sets.values() for task in one.tasks))

    @property
    def task_options(self) -> dict[str, dict[str, Any]]:
        """The options of each task for a processor: those of the first set, with the labels of all sets."""
        merged: dict[str, dict[str, Any]] = {}
        for one in self.sets.values():
            for task, options in one.tasks.items():
                before = merged.setdefault(task, {**options, "labels": []})
                before["labels"] = list(dict.fromkeys([*before["labels"], *options["labels"]]))
        return merged

    def training_sets(self, names: Iterable[str] | None = None) -> list[DataSet]:
        """Return the sets that have training queries, all or only the named ones, in the order of the corpus."""
        wanted = set(self.sets if names is None else names)
        return [one for name, one in self.sets.items() if name in wanted and one.tasks_in("train")]

    def scored(self, split: str) -> list[tuple[str, str, str]]:
        """Return every task with queries in a split: its key in metrics and tables, its data set, its name."""
        return [
            (task if self.is_single else f"{name} {task}", name, task)
            for name, one in self.sets.items()
            for task in one.tasks_in(split)
        ]


def with_shuffled_images(records: Sequence[Record], seed: int = 0, *, keeps_regions: bool = False) -> list[Record]:
    """Return records that have another image, always the same for a seed.

    Each image is replaced by another one wherever it occurs; a record has as many as before.

    Args:
        records: the records.
        seed: the seed.
        keeps_regions: whether answers refer to regions: records then keep their own, and their annotation, so that they
            are scored like the others. Otherwise they have the regions of the other image, and the annotation refers
            to none.

    Raises:
        UmieError: all records have the same image, or those that a record would get are in several folders.
    """
    first: dict[str, tuple[Record, int]] = {}  # a record with the image, and its number there
    for record in records:
        for number in range(len(record.images)):
            first.setdefault(_image_of(record, number), (record, number))
    names = list(first)
    random.Random(seed).shuffle(names)
    if len(names) == 1:
        raise UmieError(f"images is 'shuffled', but the records have only one image, {names[0]}: add others")
    others = dict(zip(names, [*names[1:], *names[:1]], strict=True))
    shuffled = list(records)
    for place, record in enumerate(records):
        if record.image is None:
            continue
        found = [first[others[_image_of(record, number)]] for number in range(len(record.images))]
        if len({source.image_folder for source, _ in found}) > 1:
            raise UmieError("images is 'shuffled', but they are in several folders: put them into one")
        regions = tuple(
            replace(region, image=own)
            for own, (source, number) in enumerate(found)
            for region in source.places_in("image", number)
        )
        image, *more_images = (source.images[number] for source, number in found)
        shuffled[place] = replace(
            record if keeps_regions else record.ungrounded("image"),
            image=image,
            more_images=tuple(more_images),
            image_folder=found[0][0].image_folder,
            regions=record.regions if keeps_regions else regions,
        )
    return shuffled


def _image_of(record: Record, number: int) -> str:
    """Return a name for an image of a record; one in memory has only its identity."""
    image = record.images[number]
    return f"{record.image_folder}/{image}" if isinstance(image, str) else str(id(image))


def count_queries(tasks: Mapping[str, Task[Any]], records: Iterable[Record]) -> dict[str, int]:
    """Return the number of queries of each task about the records that are annotated for it."""
    counts = dict.fromkeys(tasks, 0)
    for record in records:
        for name, task in tasks.items():
            if record.annotated_for(name):
                counts[name] += len(task.queries(record))
    return counts


def count_combinations(records: Iterable[Record]) -> dict[str, int]:
    """Return the number of records with each combination of text and media."""
    return dict(Counter(record.combination for record in records))


def hash_of(value: Any) -> str:
    """Return a short hash of plain data that is the same in every process."""
    canonical = json.dumps(value, sort_keys=True, ensure_ascii=False, default=list)
    return hashlib.sha256(canonical.encode()).hexdigest()[:12]
