"""What a configuration may say about data: one data set or several, how they are mixed, what is left out."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from umie import data as formats
from umie import tasks as all_tasks
from umie.data.synthetic import SPLITS, SyntheticConfig
from umie.errors import UmieError, UnknownNameError, at, check_choice, check_flag, check_keys, check_positive, shown

STRATEGIES = ("proportional", "equal", "temperature")
OWN_KEYS = ("name", "tasks", "weight")
FILE_KEYS = (*SPLITS, "images", "regions", "max_records")
CORPUS_KEYS = ("sets", "sampling", "exclude_overlap")
EVALUATION_SPLITS = tuple(split for split in SPLITS if split != "train")
_NO_NAME = " \t\r\n/\\\0"  # a set's name stands before a task's in tables, and in file names


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How training draws from several data sets.

    Args:
        strategy: ``proportional`` to their queries, the same share for each (``equal``), or their queries to the
            power 1 / ``temperature``, between the two.
        temperature: of the strategy ``temperature``; 1 is proportional, and the larger, the nearer to equal.
    """

    strategy: str = "proportional"
    temperature: float = 2.0

    def __post_init__(self) -> None:
        check_choice("strategy", self.strategy, STRATEGIES)
        check_positive("temperature", self.temperature)


@dataclass(frozen=True, kw_only=True)
class SetConfig:
    """One data set of a configuration.

    Args:
        name: what tables call it.
        format: ``synthetic``, or a name of ``umie.data.registry``.
        options: of the format: the file of each split and the folders, or those of SyntheticConfig.
        tasks: name and options of each task.
        names_tasks: whether the set itself names its tasks, so that each must be annotated in it.
        weight: factor on the share that training draws from it.
    """

    name: str
    format: str
    options: Mapping[str, Any]
    tasks: Mapping[str, Mapping[str, Any]]
    names_tasks: bool
    weight: float = 1.0


@dataclass(frozen=True, kw_only=True)
class CorpusConfig:
    """All data of a configuration.

    Args:
        sets: the data sets, by name.
        is_single: whether the configuration gives one data set without a list of sets.
        sampling: how training draws from them.
        exclude_overlap: the splits whose texts are left out of every training split.
    """

    sets: Mapping[str, SetConfig]
    is_single: bool
    sampling: Sampling = field(default_factory=Sampling)
    exclude_overlap: tuple[str, ...] = ()


def read_corpus_config(data: object, tasks: Mapping[str, Mapping[str, Any]]) -> CorpusConfig:
    """Check the key ``data`` of a configuration without reading a file.

    Args:
        data: one data set (``format`` and its options), or ``sets`` of them by name; beside either stands
            ``exclude_overlap``, beside ``sets`` also ``sampling``.
        tasks: name and options of each task, for the sets that name none.

    Raises:
        UmieError: an unknown key, name or format, or a value that is not allowed.
    """
    given = as_mapping("data", data)
    overlap = _overlap(given.get("exclude_overlap", False))
    if "sets" not in given:
        options = {key: value for key, value in given.items() if key != "exclude_overlap"}
        one = _set(str(options.get("name", "data")), options, tasks, is_single=True)
        return CorpusConfig(sets={one.name: one}, is_single=True, exclude_overlap=overlap)
    check_keys("data key", given, CORPUS_KEYS)
    named = as_mapping("data: sets", given["sets"])
    if not named:
        raise UmieError("data: sets is empty: name at least one data set")
    sets = {}
    for name, options in named.items():
        with at(f"data set {name!r}"):
            sets[name] = _set(name, as_mapping("it", options), tasks, is_single=False)
    unused = [task for task in tasks if not any(task in one.tasks for one in sets.values())]
    if unused:
        raise UmieError(f"no data set has the task {unused[0]!r}: leave it out of `tasks`")
    with at("data: sampling"):
        sampling = as_mapping("it", given.get("sampling") or {})
        check_keys("key", sampling, [item.name for item in dataclasses.fields(Sampling)])
        mixed = Sampling(**sampling)
    return CorpusConfig(sets=sets, is_single=False, sampling=mixed, exclude_overlap=overlap)


def check_tasks(value: object) -> dict[str, dict[str, Any]]:
    """Return the key ``tasks`` of a configuration as name and options of each task.

    Raises:
        UmieError: neither a name, nor a list of names, nor a mapping; an unknown task or option.
    """
    given = value if isinstance(value, dict) else {name: {} for name in _names(value)}
    checked = {}
    for name, options in given.items():
        checked[str(name)] = as_mapping(f"task {name!r}", options or {})
        all_tasks.registry.build(str(name), **checked[str(name)])
    return checked


def as_mapping(kind: str, value: Any) -> dict[str, Any]:
    """Return a value that is a mapping with strings as keys; raise UmieError, naming ``kind``, if it is none."""
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
        raise UmieError(f"{kind} is {value!r}: expected a mapping of names to values")
    return value


def _names(value: object) -> Sequence[str]:
    names = [value] if isinstance(value, str) else value
    if not isinstance(names, list | tuple) or not all(isinstance(name, str) for name in names):
        raise UmieError(f"tasks is {value!r}: give a list of names, or a mapping from names to options")
    return names


def _set(name: str, given: Mapping[str, Any], tasks: Mapping[str, Mapping[str, Any]], *, is_single: bool) -> SetConfig:
    if not name or set(name) & set(_NO_NAME) or name.startswith("."):
        raise UmieError(f"its name is {shown(name)}: give one without spaces and slashes, it becomes part of a file's")
    kind = given.get("format")
    choices = ["synthetic", *formats.registry.names()]
    if kind not in choices:
        raise UnknownNameError("data format", kind, choices)
    known = [item.name for item in dataclasses.fields(SyntheticConfig)] if kind == "synthetic" else FILE_KEYS
    own = ("name",) if is_single else ("tasks", "weight")
    check_keys("data key", given, ["format", *own, *known])
    options = {key: value for key, value in given.items() if key in known}
    weight = given.get("weight", 1.0)
    check_positive("weight", weight)
    if given.get("tasks") is None:
        return SetConfig(name=name, format=kind, options=options, tasks=tasks, names_tasks=is_single, weight=weight)
    chosen = check_tasks(given["tasks"])
    if not chosen:
        raise UmieError("tasks is empty: leave it out for those that the set is annotated for")
    if isinstance(given["tasks"], str | list | tuple):  # by name alone: with the options that stand at the top
        chosen = {task: dict(tasks.get(task, {})) for task in chosen}
    return SetConfig(name=name, format=kind, options=options, tasks=chosen, names_tasks=True, weight=weight)


def _overlap(value: object) -> tuple[str, ...]:
    if isinstance(value, list | tuple):
        check_keys("split in exclude_overlap:", value, EVALUATION_SPLITS)
        return tuple(value)
    check_flag("exclude_overlap", value)
    return EVALUATION_SPLITS if value else ()
