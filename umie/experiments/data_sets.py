"""DataSet and Corpus: descriptions of checked data files that can be sent to other processes as JSON."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple

from umie import tasks as all_tasks
from umie.errors import check_keys
from umie.records import Record, read_jsonl
from umie.tasks import Task
from umie.training.config import Sampling

Options = Mapping[str, Mapping[str, Any]]  # options of each task, by name


class Scored(NamedTuple):
    """A task on a data set, with their common name in metrics and tables: ``key``."""

    key: str
    data_set: str
    task: str


@dataclass(frozen=True)
class DataSet:
    """A checked data set: runs read the checked copies of its records, never the original files.

    Args:
        name: its name in tables.
        format: the original format, or ``synthetic``.
        files: the checked copy of each split, a JSONL file.
        images: the image directory of each split; None if the split has no images.
        tasks: name and options of each task, with the label schema of this set.
        ceilings: the best F1 without images, by task, if the distribution is known.
        is_synthetic: whether this is the embedded data set.
        num_records: number of records in each split.
        num_queries: number of queries in each split, by task.
        num_images: number of records in each split with a readable image.
        num_seen: number of records in each evaluation split whose text also occurs in a training split of any set of
            the corpus, if it was counted.
        num_excluded: number of training records excluded because their text occurs in an evaluation split.
        unreadable: the unreadable images of each split, with the reason. Depending on the policy, their records are
            used without the image or skipped.
        fingerprint: hash of all texts, annotations and images.
    """

    name: str
    format: str
    files: Mapping[str, str]
    images: Mapping[str, str | None]
    tasks: Options
    ceilings: Mapping[str, float]
    is_synthetic: bool
    num_records: Mapping[str, int]
    num_queries: Mapping[str, Mapping[str, int]]
    num_images: Mapping[str, int]
    num_seen: Mapping[str, int]
    num_excluded: int
    unreadable: Mapping[str, Mapping[str, str]]
    fingerprint: str

    def read(self, split: str) -> list[Record]:
        """Return the records of a split."""
        return list(read_jsonl(self.files[split], images=self.images[split]))

    def built(self, options: Options | None = None) -> dict[str, Task[Any]]:
        """Return the tasks with the label schemas of this set; ``options``, by task, override those of the set."""
        return {name: all_tasks.registry.build(name, **given) for name, given in self.options(options).items()}

    def options(self, options: Options | None = None) -> dict[str, dict[str, Any]]:
        """Return name and options of each task; ``options``, by task, override those of the set."""
        return {name: {**given, **(options or {}).get(name, {})} for name, given in self.tasks.items()}

    def tasks_in(self, split: str) -> list[str]:
        """Return the tasks that have queries in a split."""
        return [name for name, count in self.num_queries.get(split, {}).items() if count]


@dataclass(frozen=True)
class Corpus:
    """The data sets of a config; ``to_json`` and ``from_json`` transfer it to another process.

    Args:
        sets: the data sets, by name.
        weights: factor on the share of each set in training.
        sampling: how training samples from the sets.
        is_single: whether there is only one set, so that tables show tasks without the name of the set.
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
        """Return the sets that have training queries, all or only the named ones, in the order of the corpus.

        Raises:
            UnknownNameError: a name is unknown.
        """
        wanted = list(self.sets if names is None else names)
        check_keys("data set", wanted, self.sets)
        return [one for name, one in self.sets.items() if name in wanted and one.tasks_in("train")]

    def scored(self, split: str) -> list[Scored]:
        """Return every task on every set with queries in a split."""
        return [
            Scored(self.key(name, task), name, task) for name, one in self.sets.items() for task in one.tasks_in(split)
        ]

    def key(self, data_set: str, task: str) -> str:
        """Return the name of a task on a set in tables and metrics, which includes the set if there are several."""
        return task if self.is_single else f"{data_set} {task}"

    def records(self, split: str, names: Sequence[str] | None = None) -> list[Record]:
        """Return the records of a split, of all sets or only the named ones."""
        chosen = [one for name, one in self.sets.items() if names is None or name in names]
        return [record for one in chosen if split in one.files for record in one.read(split)]


def hash_of(value: Any) -> str:
    """Return a short hash of plain data that is the same in every process."""
    canonical = json.dumps(value, sort_keys=True, ensure_ascii=False, default=list)
    return hashlib.sha256(canonical.encode()).hexdigest()[:12]
