"""Measure a few steps of a cell on a sample of its data, to estimate what the whole cell costs."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from umie.experiments.config import RunConfig
from umie.experiments.data_sets import Corpus, DataSet, count_combinations, count_queries
from umie.experiments.estimate import SAVES, Cost, num_queries, peak_memory, size_of
from umie.experiments.job_progress import JobProgress, Report
from umie.experiments.results import COUNTS
from umie.experiments.variant import Variant, train_warm_start
from umie.files import atomic_write
from umie.training.config import TrainingConfig

STEPS = 6  # the first of which is not timed
RECORDS = 32  # of each split and data set, evenly spread


class Stopwatch(JobProgress):
    """Progress of a job that also keeps the time of each phase and step."""

    def __init__(self, report: Report) -> None:
        super().__init__(report)
        self.phases: dict[str, float] = {}  # when each began
        self.steps: dict[str, list[float]] = {}  # when each step of a phase ended

    def phase(self, name: str, total: float | None = None) -> None:
        """Start a phase."""
        self.phases[name] = time.perf_counter()
        super().phase(name, total)

    def advance(self, done: float, loss: float | None = None) -> None:
        """Report the progress of the phase."""
        self.steps.setdefault(list(self.phases)[-1], []).append(time.perf_counter())
        super().advance(done, loss)

    def step_s(self, phase: str) -> float:
        """Return the seconds of a step of a phase, without the first step, which also starts the phase."""
        ends = self.steps[phase]
        return (ends[-1] - ends[0]) / (len(ends) - 1)


def sample_of(corpus: Corpus, folder: Path) -> Corpus:
    """Write evenly spread records of each split of each data set to a directory, and return them as a corpus."""
    return replace(corpus, sets={name: _sample(one, folder / name) for name, one in corpus.sets.items()})


def _sample(one: DataSet, folder: Path) -> DataSet:
    files = {}
    for split, path in one.files.items():
        lines = Path(path).read_text(encoding="utf-8").splitlines() if one.num_records.get(split) else []
        count = min(RECORDS, len(lines))
        files[split] = str(folder / f"{split}.jsonl")
        with atomic_write(files[split]) as file:
            file.writelines(f"{lines[index * len(lines) // count]}\n" for index in range(count))
    small = replace(one, files=files)
    read = {split: small.read(split) if one.num_records.get(split) else [] for split in files}
    tasks = small.built()
    return replace(
        small,
        num_records={split: len(records) for split, records in read.items()},
        num_combinations={split: count_combinations(records) for split, records in read.items()},
        num_queries={split: count_queries(tasks, records) for split, records in read.items()},
    )


def calibration_job(config: RunConfig, corpus: Corpus, sample: Corpus) -> dict[str, Any]:
    """Return the job that measures a run on a sample of its corpus, without names and folders."""
    splits = _splits(config)
    return {
        "kind": "calibration",
        "config": config.to_json(),
        "data": sample.to_json(),
        "whole": {
            "train": num_queries(config, corpus),
            **{split: _count(corpus, split) for split in splits if split != "train"},
        },
        "records": _num_records(corpus, splits),
    }


def calibrate(job: Mapping[str, Any], config: RunConfig, sample: Corpus, report: Report) -> dict[str, Any]:
    """Measure a few steps of a cell; return its cost on the whole data, see ``calibration_job``."""
    folder, watch = Path(job["folder"]), Stopwatch(report)
    whole: Mapping[str, int] = job["whole"]
    short, split, splits = _short(config), config.evaluation.split, _splits(config)
    started = time.perf_counter()
    variant = Variant(short, sample, splits, warm_start=None, store=folder / "features", progress=watch)
    built = time.perf_counter()
    saved = None if config.checkpoints is None else folder / "checkpoints"
    variant.train(saved)
    trained = time.perf_counter()
    watch.phase("evaluate", 1)
    variant.score(split, folder=folder)
    per_query_s = (time.perf_counter() - trained) / max(1, _count(sample, split))
    step_s = watch.step_s("train")
    encode_s = sum(one["seconds"] for one in (variant.images, *variant.media.values()))
    fixed_s = watch.phases["encoding texts"] - started - encode_s
    fixed_s += (built - watch.phases["encoding texts"]) * whole["train"] / max(1, num_queries(config, sample))
    fixed_s += watch.steps["train"][0] - watch.phases["train"]  # the first step, and what it sets up
    fixed_s += per_query_s * whole[split]
    scratch = 0
    if saved is not None and config.checkpoints is not None:
        save_s = max(0.0, trained - watch.steps["train"][-1] - per_query_s * _count(sample, "dev"))
        each_s = save_s + per_query_s * whole["dev"]
        if config.checkpoints.save_steps is None:
            fixed_s += SAVES * each_s
        else:
            step_s += each_s / config.checkpoints.save_steps
        scratch = size_of(saved) * (config.checkpoints.save_total_limit + 1)  # and the best one
    more = job["records"] / _num_records(sample, splits)
    kept = sum(path.stat().st_size for path in (*folder.glob("*.jsonl"), folder / COUNTS))
    cost = Cost(
        fixed_s=fixed_s,
        step_s=step_s,
        encode_s=encode_s * more,
        encoded_bytes=size_of(folder / "features") * more,
        memory_bytes=peak_memory().get("host", 0),
        device_bytes=peak_memory().get("device", 0),
        kept_bytes=kept * whole[split] / max(1, _count(sample, split)),
        scratch_bytes=scratch,
    )
    return {"metrics": {}, "cost": asdict(cost)}


def calibrate_warm_start(job: Mapping[str, Any], config: RunConfig, sample: Corpus, report: Report) -> dict[str, Any]:
    """Measure a few steps of a warm start."""
    folder, watch = Path(job["folder"]), Stopwatch(report)
    started = time.perf_counter()
    train_warm_start(_short(config), sample, folder / "saved", watch)
    step_s = watch.step_s("warm start")
    fixed_s = time.perf_counter() - started - (STEPS - 1) * step_s
    memory = peak_memory()
    cost = Cost(fixed_s, step_s, memory_bytes=memory.get("host", 0), kept_bytes=size_of(folder / "saved"))
    return {"metrics": {}, "cost": asdict(cost)}


def _short(config: RunConfig) -> RunConfig:
    """Return a run of a few steps, which stores features in its own directory and logs nowhere."""

    def few(training: TrainingConfig) -> TrainingConfig:
        return training.model_copy(update={"max_steps": STEPS, "num_train_epochs": None})

    changes: dict[str, Any] = {"training": few(config.training)}
    changes["features"] = config.features.model_copy(update={"folder": None})
    if config.warm_start is not None:
        changes["warm_start"] = config.warm_start.model_copy(update={"training": few(config.warm_start.training)})
    if config.checkpoints is not None:
        never = {"save_steps": STEPS, "early_stopping_patience": None, "report_to": ()}
        changes["checkpoints"] = config.checkpoints.model_copy(update=never)
    return config.model_copy(update=changes)


def _splits(config: RunConfig) -> list[str]:
    own = [] if config.checkpoints is None else ["dev"]
    return list(dict.fromkeys(["train", *own, config.evaluation.split]))


def _count(corpus: Corpus, split: str) -> int:
    return sum(sum(one.num_queries.get(split, {}).values()) for one in corpus.sets.values())


def _num_records(corpus: Corpus, splits: Sequence[str]) -> int:
    return max(1, sum(one.num_records.get(split, 0) for one in corpus.sets.values() for split in splits))
