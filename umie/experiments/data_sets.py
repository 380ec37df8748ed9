"""DataSet and Corpus: checked data as files, small enough to be handed to other processes as JSON."""

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

Options = Mapping[str, Mapping[str, Any]]  # of each task, by its name


class Scored(NamedTuple):
    """A task on a data set, and what metrics and tables call the two: ``key``."""

    key: str
    data_set: str
    task: str


@dataclass(frozen=True)
class DataSet:
    """A checked data set, as files.

    Args:
        name: what tables call it.
        format: the format that it was read from, or ``synthetic``.
        files: the JSONL file of each split.
        images: folder of each split's images; None where they are given by paths of their own.
        tasks: name and options of each task, with this set's label schema filled in.
        ceilings: of text alone, by task, where the distribution is known.
        is_synthetic: whether this is the embedded data set.
        num_records: of each split.
        num_queries: of each split, by task.
        num_images: records of each split with an image that can be read.
        num_seen: records of each evaluation split whose text stands in a training split too, of any set of the
            corpus, where that was counted.
        num_excluded: training records left out because their text stands in an evaluation split.
        unreadable: for each split, the images that cannot be read, with the reason; its records are trained on and
            scored as text alone, or left out, as the policy says.
        fingerprint: of all texts, annotations and images.
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
        """Return the tasks with this set's label schemas; ``options``, by task, go before those of the set."""
        return {name: all_tasks.registry.build(name, **given) for name, given in self.options(options).items()}

    def options(self, options: Options | None = None) -> dict[str, dict[str, Any]]:
        """Return name and options of each task; ``options``, by task, go before those of the set."""
        return {name: {**given, **(options or {}).get(name, {})} for name, given in self.tasks.items()}

    def asked(self, split: str) -> list[str]:
        """Return the tasks that something is asked for in a split."""
        return [name for name, count in self.num_queries.get(split, {}).items() if count]


@dataclass(frozen=True)
class Corpus:
    """The data sets of a configuration; ``to_json`` and ``from_json`` carry it to another process.

    Args:
        sets: the data sets, by name.
        weights: factor on the share that training draws from each.
        sampling: how training draws from them.
        is_single: whether tables call a task by its own name alone.
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
        """A hash of all that a model trained on the corpus depends on, but the options of a single set's tasks."""
        if self.is_single:
            (one,) = self.sets.values()
            return one.fingerprint
        sets = [[name, one.fingerprint, list(one.tasks.items()), self.weights[name]] for name, one in self.sets.items()]
        return hash_of([sets, self.sampling.model_dump(), self.is_single])

    @property
    def tasks(self) -> list[str]:
        """The names of the tasks of all sets, in the order in which they are first met."""
        return list(dict.fromkeys(task for one in self.sets.values() for task in one.tasks))

    @property
    def task_options(self) -> dict[str, dict[str, Any]]:
        """Options of each task for a processor: those of the first set, with the labels of all."""
        merged: dict[str, dict[str, Any]] = {}
        for one in self.sets.values():
            for task, options in one.tasks.items():
                before = merged.setdefault(task, {**options, "labels": []})
                before["labels"] = list(dict.fromkeys([*before["labels"], *options["labels"]]))
        return merged

    def trained(self, names: Iterable[str] | None = None) -> list[DataSet]:
        """Return the sets with something to train on, all or those named, in the order of the corpus.

        Raises:
            UnknownNameError: a set of that name is not there.
        """
        wanted = list(self.sets if names is None else names)
        check_keys("data set", wanted, self.sets)
        return [one for name, one in self.sets.items() if name in wanted and one.asked("train")]

    def scored(self, split: str) -> list[Scored]:
        """Return every task on every set that has annotated records in a split."""
        return [
            Scored(self.key(name, task), name, task) for name, one in self.sets.items() for task in one.asked(split)
        ]

    def key(self, data_set: str, task: str) -> str:
        """Return what tables and metrics call a task on a set: with several sets its name stands before."""
        return task if self.is_single else f"{data_set} {task}"

    def records(self, split: str, names: Sequence[str] | None = None) -> list[Record]:
        """Return the records of a split of all sets that have it, or of those named."""
        chosen = [one for name, one in self.sets.items() if names is None or name in names]
        return [record for one in chosen if split in one.files for record in one.read(split)]


def hash_of(value: Any) -> str:
    """Return a short hash of a value made of plain data, the same in every process."""
    canonical = json.dumps(value, sort_keys=True, ensure_ascii=False, default=list)
    return hashlib.sha256(canonical.encode()).hexdigest()[:12]
