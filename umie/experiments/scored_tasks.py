"""The scored tasks of a run: each task on each data set, with each wording, and its name in tables."""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass

from umie.errors import UmieError, check_keys
from umie.experiments.choices import Wording, instruction_label, read_instruction
from umie.experiments.config import RunConfig
from umie.experiments.data_sets import Corpus
from umie.tasks import registry, task_class


@dataclass(frozen=True)
class ScoredTask:
    """One task on one data set.

    Its key in results and in the CSV file is the task, after the set if there are several sets, and followed by the
    wording if there are several wordings, and by ``[free]`` if free answers are scored along with constrained ones.
    """

    key: str
    title: str  # its name in tables and figures
    data_set: str
    task: str
    events: str  # the events that a staged task is asked about, predicted or gold
    constrained: bool = False  # whether answers are generated under the grammar
    wording: Wording | None = None  # None uses the wording of the run

    @property
    def is_oracle(self) -> bool:
        """Whether the model gets gold events."""
        return bool(task_class(self.task).is_staged) and self.events == "gold"

    @property
    def file_name(self) -> str:
        """The key in a form for file names."""
        return re.sub(r"[^\w.+-]+", "-", self.key).strip("-.")


def scored_tasks(config: RunConfig, corpus: Corpus, split: str | None = None) -> list[ScoredTask]:
    """Return the scored tasks of a split, by default the evaluation split, in the order of the tables."""
    split = split or config.evaluation.split
    found = []
    chosen = config.evaluation.constrained
    decodings = {True: "", False: " [free]"} if chosen == "both" else {bool(chosen): ""}
    for instruction, (constrained, free) in itertools.product(
        config.evaluation.instructions or [None], decodings.items()
    ):
        wording = None if instruction is None else read_instruction(instruction, config.data.tasks)
        suffix = ("" if instruction is None else f" [{instruction_label(instruction)}]") + free
        for key, data_set, task in corpus.scored(split):
            part = task_class(task)
            has_source = part.source in corpus.sets[data_set].tasks_in(split)
            events = config.evaluation.events if has_source else "gold"
            title = "" if corpus.is_single else f"{data_set} "
            title += f"{task.upper()} (oracle events)" if part.is_staged and events == "gold" else task.upper()
            found.append(ScoredTask(key + suffix, title + suffix, data_set, task, events, constrained, wording))
    return found


def measure_of(config: RunConfig, task: str) -> str | None:
    """Return the measure that a task of a run is judged by; None for the main one of its kind."""
    return registry.build(task, **config.tasks.get(task, {})).measure


def f1_name(config: RunConfig) -> str:
    """Return what the scores of a run are: ``strict micro-F1``, without ``strict`` if places count in some tasks."""
    return "micro-F1" if any(measure_of(config, task) for task in config.tasks) else "strict micro-F1"


DEV_MEAN = "mean_f1"  # the dev score that is the mean over tasks


def check_metric(config: RunConfig, corpus: Corpus | None = None) -> None:
    """Check the dev score that selects the checkpoint, if checkpoints are saved.

    Without a corpus, every task counts as annotated in every data set that lists no tasks of its own.

    Raises:
        UmieError: the score is not computed, or it is needed for early stopping and there is no dev split.
    """
    checkpoints = config.checkpoints
    if checkpoints is None or config.training.fsdp:
        return
    if corpus is None:
        sets = config.data.sets.values()
        has_dev = any(one.is_drawn or one.options.get("dev") is not None for one in sets)
        keys = [task if config.data.is_single else f"{one.name} {task}" for one in sets for task in one.tasks]
        keys = [key + suffix for key in keys for suffix in _suffixes(config)]
    else:
        keys = [one.key for one in scored_tasks(config, corpus, "dev")]
        has_dev = bool(keys)
    if has_dev:
        names = [DEV_MEAN, *(f"{score_name(key)}_f1" for key in keys)]
        check_keys("checkpoints.metric_for_best_model", [checkpoints.metric_for_best_model], names)
    elif checkpoints.early_stopping_patience is not None:
        raise UmieError("checkpoints.early_stopping_patience needs dev scores, and no data set has a dev split")


def score_name(key: str) -> str:
    """Return the key of a scored task in the names of dev scores: ``twitter17_mner`` for ``twitter17 mner``."""
    return key.replace(" ", "_")


def _suffixes(config: RunConfig) -> list[str]:
    """Return what follows the task in the keys of scored tasks: the wording and the decoding, if there are several."""
    wordings = [f" [{instruction_label(one)}]" for one in config.evaluation.instructions] or [""]
    decodings = ["", " [free]"] if config.evaluation.constrained == "both" else [""]
    return [wording + decoding for wording in wordings for decoding in decodings]


def averaged(config: RunConfig, scored: list[ScoredTask]) -> list[str]:
    """Return the keys that the mean score averages; raise UmieError if ``mean_over`` names others.

    Free answers that are scored along with constrained ones do not count.
    """
    chosen: list[str] = []
    main = [one for one in scored if one.constrained or config.evaluation.constrained != "both"]
    for name in config.mean_over:
        fitting = [one.key for one in main if name in (one.task, f"{one.data_set} {one.task}")]
        fitting = fitting or [one.key for one in scored if one.key == name]
        if not fitting:
            known = ", ".join(one.key for one in scored)
            raise UmieError(f"mean_over: {name!r} is not scored on the {config.evaluation.split} split; it has {known}")
        chosen += [key for key in fitting if key not in chosen]
    return chosen or [one.key for one in main]


def dev_mean_keys(config: RunConfig, corpus: Corpus) -> list[str]:
    """Return the keys of the scored tasks whose mean F1 on the dev split, DEV_MEAN, may select the checkpoint."""
    scored = scored_tasks(config, corpus, "dev")
    learned = {one.name for one in corpus.training_sets(config.trained_on)}
    keys = averaged(config, scored)
    own = {one.key for one in scored if one.data_set in learned}
    return [key for key in keys if key in own] or keys  # held-out sets must not select the checkpoint
