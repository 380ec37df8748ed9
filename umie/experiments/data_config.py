"""The key ``data`` of a config: one or several data sets, their mixture, and the exclusion of overlap."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from pydantic import Field

from umie import data as formats
from umie import tasks as all_tasks
from umie.configs import Config, ConfigError, PositiveNumber, as_mapping, errors_in, errors_of
from umie.data.embedded import EMBEDDED
from umie.errors import UmieError, UnknownNameError, at, check_flag, check_keys, shown
from umie.training.config import Sampling
from umie.types import SPLITS

EVALUATION_SPLITS = tuple(split for split in SPLITS if split != "train")

TaskOptions = Mapping[str, dict[str, Any]]


class SetConfig(Config):
    """One data set of a config."""

    name: str
    format: str  # a name from EMBEDDED or from umie.data.registry
    options: dict[str, Any]  # the file of each split, the directories and other options of the format
    tasks: dict[str, dict[str, Any]]
    names_tasks: bool  # whether the set lists its own tasks, so that each of them must be annotated in it
    weight: PositiveNumber = 1.0  # factor on its share in training

    @property
    def is_drawn(self) -> bool:
        """Whether its records are drawn, so that it has all splits and no files."""
        return self.format in EMBEDDED


class DataConfig(Config):
    """The data of a config: one data set (``is_single``), or several under the key ``sets``.

    The texts of the splits in ``exclude_overlap`` are excluded from all training splits.
    """

    sets: dict[str, SetConfig]
    is_single: bool
    sampling: Sampling = Field(default_factory=Sampling)
    exclude_overlap: tuple[str, ...] = ()

    @property
    def tasks(self) -> list[str]:
        """The names of the tasks of all sets, in order of first appearance."""
        return list(dict.fromkeys(task for one in self.sets.values() for task in one.tasks))

    @property
    def is_embedded(self) -> bool:
        """Whether all sets are ``synthetic``, so that more texts like theirs can be drawn."""
        return all(one.format == "synthetic" for one in self.sets.values())


def read_data_config(data: object, tasks: TaskOptions) -> DataConfig:
    """Check the key ``data`` of a config without reading files.

    ``data`` is one data set (``format`` and its options), or ``sets`` of these by name; both with an optional
    ``exclude_overlap``, and ``sets`` also with an optional ``sampling``. Sets that list no tasks get ``tasks``.

    Raises:
        UmieError: keys, names or formats are unknown, or values are not allowed.
    """
    given = as_mapping("data", data)
    overlap = given.get("exclude_overlap", False)
    if isinstance(overlap, list | tuple):
        check_keys("split in exclude_overlap:", overlap, EVALUATION_SPLITS)
    else:
        check_flag("exclude_overlap", overlap)
        overlap = EVALUATION_SPLITS if overlap else ()
    if "sets" not in given:
        options = {key: value for key, value in given.items() if key != "exclude_overlap"}
        one = _set(str(options.get("name", "data")), options, tasks, is_single=True)
        return DataConfig(sets={one.name: one}, is_single=True, exclude_overlap=overlap)
    check_keys("data key", given, ("sets", "sampling", "exclude_overlap"))
    named = as_mapping("data: sets", given["sets"])
    if not named:
        raise UmieError("data: sets is empty: name at least one data set")
    sets = {}
    errors: list[str] = []
    for name, options in named.items():
        try:
            sets[name] = _set(name, as_mapping("it", options), tasks, is_single=False)
        except UmieError as error:
            errors += [f"data set {name!r}: {line}" for line in errors_of(error)]
    unused = [task for task in tasks if not any(task in one.tasks for one in sets.values())]
    if unused and not errors:
        errors.append(f"no data set has the task {unused[0]!r}: remove it from `tasks`")
    if errors:
        raise ConfigError(errors)
    with at("data: sampling"):
        sampling = Sampling(**as_mapping("it", given.get("sampling") or {}))
    return DataConfig(sets=sets, is_single=False, sampling=sampling, exclude_overlap=overlap)


def read_tasks(value: object) -> dict[str, dict[str, Any]]:
    """Return the key ``tasks`` of a config as name and options of each task; raise UmieError if it is invalid."""
    given = [value] if isinstance(value, str) else value
    if isinstance(given, list | tuple) and all(isinstance(name, str) for name in given):
        given = {name: {} for name in given}
    if not isinstance(given, dict):
        raise UmieError(f"tasks is {shown(value)}: use a list of names, or a mapping from names to options")
    if not given:
        raise UmieError("tasks is empty: name at least one")
    checked = {}
    errors: list[str] = []
    for name, options in given.items():
        try:
            checked[str(name)] = as_mapping(f"task {name!r}", options or {})
            all_tasks.registry.build(str(name), **checked[str(name)])
        except UmieError as error:
            errors += errors_of(error)
    if errors:
        raise ConfigError(errors)
    return checked


def _set(name: str, given: Mapping[str, Any], tasks: TaskOptions, *, is_single: bool) -> SetConfig:
    if not name or set(name) & set(" \t\r\n/\\\0") or name.startswith("."):
        raise UmieError(f"its name is {shown(name)}: remove spaces and slashes, because it is used in file names")
    kind = given.get("format")
    choices = [*EMBEDDED, *formats.registry.names()]
    if kind not in choices:
        raise UnknownNameError("data format", kind, choices)
    known = ["format", "name"] if is_single else ["format", "tasks", "weight"]
    if kind in EMBEDDED:
        known += [item.name for item in dataclasses.fields(EMBEDDED[kind].config)]
    else:
        known += [*SPLITS, "images", "regions", "max_records", *formats.format_options(kind)]
    errors = [line for key in given for line in errors_in(check_keys, "data key", [key], known)]
    if errors:
        raise ConfigError(errors)
    options = {key: value for key, value in given.items() if key not in ("format", "name", "tasks", "weight")}
    own_tasks = given.get("tasks")
    chosen = dict(tasks) if own_tasks is None else read_tasks(own_tasks)
    if isinstance(own_tasks, str | list | tuple):  # names only: use the options at the top level
        chosen = {task: tasks.get(task, {}) for task in chosen}
    return SetConfig(
        name=name,
        format=kind,
        options=options,
        weight=given.get("weight", 1.0),
        tasks=chosen,
        names_tasks=is_single or own_tasks is not None,
    )
