"""What a grid varies besides parts: the data sets that are trained on, and the instructions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from umie import tasks as all_tasks
from umie.errors import UmieError, check_keys, shown
from umie.tasks.base import VARIANTS

AS_GIVEN = "as given"


@dataclass(frozen=True)
class TrainOn:
    """The data sets that a variant is trained on; the others are scored all the same.

    Args:
        label: what the table calls the choice.
        sets: their names, in the order of the data.
    """

    label: str
    sets: tuple[str, ...]


@dataclass(frozen=True)
class Instruction:
    """How tasks are worded.

    Args:
        label: what the table calls the wording.
        options: by task, what goes before the task's own options: ``variant`` or ``instruction``.
    """

    label: str = AS_GIVEN
    options: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


def read_train_on(value: object, names: Sequence[str]) -> list[TrainOn]:
    """Return the choices of the key ``train_on``.

    Args:
        value: None or ``all``; a list of lists of names; or a list of mappings with ``without`` or ``only``, and with
            ``label``; a single list of names or a single mapping is one choice.
        names: of the data sets.

    Raises:
        UmieError: a name that no data set has, nothing left to train on, or another form.
    """
    is_list = isinstance(value, list | tuple)
    several: list[Any] = list(value) if is_list and not _all_names(value, names) else [value]  # type: ignore[call-overload] # a list by then
    if not several:
        raise UmieError("train_on is empty: give `all`, or names of data sets")
    return [_one_train_on(one, names) for one in several]


def read_instructions(key: str, value: object, tasks: Iterable[str]) -> list[Instruction]:
    """Return the choices of the key ``instruction``, or of ``instructions`` in the evaluation.

    Args:
        key: for messages.
        value: None, a choice, or a list of choices: the name of a variant (paper, I0, I1, I2) for every task, or a
            mapping from tasks to the name of a variant or a template of one's own, with ``label``.
        tasks: the names of the grid's tasks.

    Raises:
        UmieError: an unknown variant or task, or a template that does not fit its task.
    """
    tasks = list(tasks)
    several = list(value) if isinstance(value, list | tuple) else [value]
    return [_one_instruction(key, one, tasks) for one in several]


def _all_names(value: Any, names: Sequence[str]) -> bool:
    """Say whether a list is one choice: names of data sets, or words that were meant as such."""
    return bool(value) and all(isinstance(name, str) and name != "all" for name in value)


def _one_train_on(value: object, names: Sequence[str]) -> TrainOn:
    if value is None or value == "all":
        return TrainOn("all sets", tuple(names))
    given: dict[str, Any] = value if isinstance(value, dict) else {"only": value}
    check_keys("key of train_on:", given, ("label", "without", "only"))
    if ("without" in given) == ("only" in given):
        raise UmieError(f"train_on is {shown(value)}: give either `only` or `without`")
    word = "only" if "only" in given else "without"
    chosen = [given[word]] if isinstance(given[word], str) else given[word]
    if not isinstance(chosen, list | tuple) or not all(isinstance(name, str) for name in chosen):
        raise UmieError(f"train_on is {shown(value)}: give names of data sets, or `all`")
    check_keys("data set in train_on:", chosen, names)
    left = tuple(name for name in names if (name in chosen) == (word == "only"))
    if not left:
        raise UmieError(f"train_on is {shown(value)}: it leaves nothing to train on")
    label = " + ".join(left) if word == "only" else f"without {', '.join(chosen)}"
    return TrainOn(str(given.get("label", label)), left)


def _one_instruction(key: str, value: object, tasks: Sequence[str]) -> Instruction:
    if value is None:
        return Instruction()
    if isinstance(value, str):
        check_keys("instruction variant", [value], VARIANTS)
        return Instruction(value, {task: {"variant": value, "instruction": None} for task in tasks})
    if not isinstance(value, dict):
        raise UmieError(f"{key} is {shown(value)}: give paper, I0, I1, I2, or a mapping from tasks to templates")
    check_keys(f"{key}: task", value, ["label", *tasks])
    options: dict[str, dict[str, Any]] = {}
    for task, wording in value.items():
        if task != "label":
            is_variant = wording in VARIANTS if isinstance(wording, str) else False
            options[task] = {"variant": wording, "instruction": None} if is_variant else {"instruction": wording}
            all_tasks.registry.build(task, **options[task])
            if wording is None:
                raise UmieError(f"{key}: the instruction of {task} is empty: write one, or leave it out")
    if not options:
        raise UmieError(f"{key} is {shown(value)}: name a task and its instruction")
    return Instruction(str(value.get("label", f"own ({', '.join(options)})")), options)
