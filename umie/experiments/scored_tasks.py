"""What a grid scores: each task on each data set, under each wording, with the name that tables give it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from umie.errors import UmieError
from umie.experiments.data_sets import Corpus
from umie.experiments.grid_config import GridConfig
from umie.experiments.slots import Instruction
from umie.tasks import task_class


@dataclass(frozen=True)
class Asked:
    """One thing that every cell is scored on.

    Args:
        key: what results and the CSV file call it: the task; with several data sets the set and the task; with
            several wordings also the wording.
        title: what tables and figures call it.
        data_set: the data set.
        task: the task.
        events: which events MEAE is asked about, ``predicted`` or ``gold``.
        instruction: what goes before the tasks' options, by task; None for the cell's own wording.
    """

    key: str
    title: str
    data_set: str
    task: str
    events: str
    instruction: Mapping[str, Mapping[str, Any]] | None = None

    @property
    def is_oracle(self) -> bool:
        """Whether the model is told annotated events."""
        return bool(task_class(self.task).is_staged) and self.events == "gold"


def asked(grid: GridConfig, corpus: Corpus) -> list[Asked]:
    """Return all that the grid scores, in the order of the tables."""
    found = []
    wordings: list[Instruction | None] = [*grid.evaluation.instructions]
    for instruction in wordings or [None]:
        for key, data_set, task in corpus.scored(grid.evaluation.split):
            part = task_class(task)
            has_stages = part.source in corpus.sets[data_set].asked(grid.evaluation.split)
            events = grid.evaluation.events if has_stages else "gold"
            title = "" if corpus.is_single else f"{data_set} "
            title += f"{task.upper()} (oracle events)" if part.is_staged and events == "gold" else task.upper()
            if instruction is None:
                found.append(Asked(key, title, data_set, task, events))
            else:
                options = dict(instruction.options)
                label = instruction.label
                found.append(Asked(f"{key} [{label}]", f"{title} [{label}]", data_set, task, events, options))
    return found


def averaged(grid: GridConfig, scored: list[Asked]) -> list[str]:
    """Return the keys that the table averages.

    Raises:
        UmieError: a task or a key of ``mean_over`` that nothing is scored on.
    """
    chosen: list[str] = []
    for name in grid.mean_over:
        fitting = [one.key for one in scored if name in (one.task, f"{one.data_set} {one.task}", one.key)]
        if not fitting:
            known = ", ".join(one.key for one in scored)
            raise UmieError(f"mean_over: {name!r} is not scored on the {grid.evaluation.split} split; it has {known}")
        chosen += [key for key in fitting if key not in chosen]
    return chosen or [one.key for one in scored]


def file_name(key: str) -> str:
    """Return a key as part of a file's name."""
    return re.sub(r"[^\w.+-]+", "-", key).strip("-.")
