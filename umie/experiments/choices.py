"""Config choices other than parts: the data sets to train on, and the wording of tasks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from umie import tasks as all_tasks
from umie.errors import UmieError, check_keys, shown
from umie.tasks.base import VARIANTS

Wording = Mapping[str, Mapping[str, Any]]
"""Options that override those of a task, by task: ``variant`` or ``instruction``."""


def train_on_label(value: object, names: Sequence[str]) -> str:
    """Return the label of a choice of ``train_on`` in tables."""
    chosen = read_train_on(value, names)
    if isinstance(value, dict) and "label" in value:
        return str(value["label"])
    if isinstance(value, dict) and "without" in value:
        return f"without {', '.join(_names(value['without'], value))}"
    return "all sets" if value is None or value == "all" else " + ".join(chosen)


def read_train_on(value: object, names: Sequence[str]) -> tuple[str, ...]:
    """Return the data sets to train on, in the order of ``names``; the others are still scored.

    ``value`` is None or ``all``, names, or a mapping with ``without`` or ``only`` and optionally ``label``.

    Raises:
        UmieError: a name is unknown, no data set is left to train on, or the value has another form.
    """
    if value is None or value == "all":
        return tuple(names)
    given: dict[str, Any] = value if isinstance(value, dict) else {"only": value}
    check_keys("key of train_on:", given, ("label", "without", "only"))
    if ("without" in given) == ("only" in given):
        raise UmieError(f"train_on is {shown(value)}: use either `only` or `without`")
    word = "only" if "only" in given else "without"
    chosen = _names(given[word], value)
    check_keys("data set in train_on:", chosen, names)
    left = tuple(name for name in names if (name in chosen) == (word == "only"))
    if not left:
        raise UmieError(f"train_on is {shown(value)}: it leaves nothing to train on")
    return left


def _names(value: object, shown_value: object) -> list[str]:
    names = [value] if isinstance(value, str) else value
    if not isinstance(names, list | tuple) or not all(isinstance(name, str) for name in names):
        raise UmieError(f"train_on is {shown(shown_value)}: use names of data sets, or `all`")
    return list(names)


def instruction_label(value: object) -> str:
    """Return the label of a choice of ``instruction`` in tables."""
    if value is None:
        return "as given"
    if isinstance(value, dict):
        tasks = [name for name in value if name != "label"]
        return str(value.get("label", f"own ({', '.join(tasks)})"))
    return str(value)


def read_instruction(value: object, tasks: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Return the wording of a choice of ``instruction``, which is empty for None.

    ``value`` is the name of a variant (paper, I0, I1, I2) for every task, or a mapping from tasks to a variant or a
    custom template, and optionally ``label``.

    Raises:
        UmieError: a variant or task is unknown, or a template does not fit its task.
    """
    tasks = list(tasks)
    if value is None:
        return {}
    if isinstance(value, str):
        check_keys("instruction variant", [value], VARIANTS)
        return {task: {"variant": value, "instruction": None} for task in tasks}
    if not isinstance(value, dict):
        raise UmieError(f"instruction is {shown(value)}: use paper, I0, I1, I2, or a mapping from tasks to templates")
    check_keys("task in instruction:", value, ["label", *tasks])
    options: dict[str, dict[str, Any]] = {}
    for task, wording in value.items():
        if task == "label":
            continue
        if wording is None:
            raise UmieError(f"instruction of {task} is empty: write one, or remove {task}")
        is_variant = isinstance(wording, str) and wording in VARIANTS
        options[task] = {"variant": wording, "instruction": None} if is_variant else {"instruction": wording}
        all_tasks.registry.build(task, **options[task])
    if not options:
        raise UmieError(f"instruction is {shown(value)}: name a task and its instruction")
    return options
