"""``run_job``: run one job of a grid, which is a warm start or a cell, and write its result."""

from __future__ import annotations

import os
import shutil
import time
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from umie.experiments.config import RunConfig
from umie.experiments.data_sets import Corpus
from umie.experiments.estimate import peak_memory, size_of
from umie.experiments.job_progress import JobProgress, Report
from umie.experiments.results import COUNTS, GATES, write_sealed
from umie.experiments.variant import Variant, gate_health, train_warm_start
from umie.files import atomic_write, json_text
from umie.registry import load_plugins
from umie.versions import file_digest, versions

TRIVIAL = "trivial"  # a kind of job that does nothing, to measure and test everything around a job


def run_job(job: Mapping[str, Any], report: Report = lambda phase, share: None) -> None:
    """Run a job, and write its result to ``job["result"]``. If the cell crashes, its result says so.

    Args:
        job: plain data: the ``kind`` of the job, the ``config`` and the ``data`` of its run, the ``identity`` of its
            result, its ``folder``, when it ``began`` (seconds since the epoch), and ``num_threads`` (None keeps them).
        report: called with the phase of the job and the finished share of the phase.
    """
    start = time.perf_counter()
    waited = max(0.0, time.time() - job["began"])  # e.g. for the start of the process
    try:
        result = {"status": "ok", **(job["answer"] if job["kind"] == TRIVIAL else _run(job, report))}
    except Exception as error:
        result = {
            "status": "crashed",
            "error": f"{type(error).__name__}: {error}",
            "traceback": traceback.format_exc(),
        }
    seconds = {"start": waited, "total": time.perf_counter() - start}
    result["seconds"] = {**result.get("seconds", {}), **seconds}
    line = {**job["identity"], **result, "versions": versions("torch", "transformers")}
    write_sealed(Path(job["result"]), line)


def _run(job: Mapping[str, Any], report: Report) -> dict[str, Any]:
    import torch
    from transformers.utils import logging

    if job["num_threads"] is not None:
        torch.set_num_threads(job["num_threads"])
    logging.disable_progress_bar()
    load_plugins(job["config"]["plugins"])  # before names of parts are checked
    config = RunConfig.from_json(job["config"])
    corpus = Corpus.from_json(job["data"])
    if job["kind"].startswith("calibration"):
        from umie.experiments.calibration import calibrate, calibrate_warm_start

        return (calibrate if job["kind"] == "calibration" else calibrate_warm_start)(job, config, corpus, report)
    if job["kind"] == "warm_start":
        torch.manual_seed(job["identity"]["seed"])
        return {"metrics": {}, **train_warm_start(config, corpus, Path(job["folder"]), JobProgress(report))}
    return _run_cell(job, config, corpus, report)


@contextmanager
def _tracking(trackers: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Set the variables by which integrations name a run and its group; yield the options of ``train``.

    Variables that are already set are kept, but for the directory of TensorBoard, which differs for each cell.
    """
    if not trackers:
        yield {}
        return
    named = {"TENSORBOARD_LOGGING_DIR": trackers["folder"]}
    for variable in ("WANDB_RUN_GROUP", "MLFLOW_EXPERIMENT_NAME"):
        named[variable] = os.environ.get(variable, trackers["group"])
    before = {name: os.environ.get(name) for name in named}
    os.environ.update(named)
    try:
        yield {"report_to": trackers["report_to"], "run_name": trackers["name"], "project": trackers["group"]}
    finally:
        for name, value in before.items():
            os.environ.pop(name)
            if value is not None:
                os.environ[name] = value


def _run_cell(job: Mapping[str, Any], config: RunConfig, corpus: Corpus, report: Report) -> dict[str, Any]:
    """Train and score a variant; keep its predictions and gates, but not its weights."""
    import torch

    from umie.training import uses_bfloat16, visual_gradient

    folder, store, progress = Path(job["folder"]), Path(job["store"]), JobProgress(report)
    split = config.evaluation.split
    splits = list(dict.fromkeys(["train", split] if config.checkpoints is None else ["train", "dev", split]))
    checkpoints = None if config.checkpoints is None else folder / "checkpoints"
    variant = Variant(config, corpus, splits, warm_start=job["warm_start"], store=store, progress=progress)
    started = time.perf_counter()
    with _tracking(job.get("trackers", {})) as options:
        measured = variant.train(checkpoints, **options)
    seconds = {"encode": variant.images["seconds"], "train": time.perf_counter() - started}
    if checkpoints is not None:
        variant.load_best(measured, checkpoints)
    model, processor, mixture = variant.model, variant.processor, variant.mixture
    size = min(len(mixture), config.training.batch_size)
    probe = [mixture[index * len(mixture) // size] for index in range(size)]  # from every set
    gradient = visual_gradient(model, processor.collate(probe))
    train_counts = dict(processor.counts)
    processor.reset_counts()
    started = time.perf_counter()
    progress.phase("evaluate", 1)
    metrics, gates = variant.score(split, folder=folder)
    seconds["evaluate"] = time.perf_counter() - started
    every_gate = [gate for values in gates.values() for gate in values]
    with atomic_write(folder / GATES) as file:
        file.write(json_text({key: [round(gate, 6) for gate in values] for key, values in gates.items()}))
    scratch = 0 if checkpoints is None else size_of(checkpoints)
    if checkpoints is not None:
        shutil.rmtree(checkpoints, ignore_errors=True)
    return {
        "metrics": metrics,
        "health": {"visual_gradient": gradient, **(gate_health(every_gate) if every_gate else {})},
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "trainable_parameters": sum(one.numel() for one in model.parameters() if one.requires_grad),
        "counts": {"train": train_counts, split: dict(processor.counts)},
        "shares": dict(zip(mixture.names, mixture.probabilities, strict=True)),
        "encoded_texts": None if model.stored_texts is None else model.stored_texts.num_encoded,
        "images": {
            **variant.images,
            "encoder_calls": variant.encoder_calls("image"),
            "boxes": dict(getattr(processor.preprocessor, "counts", {})),  # of precomputed features
            **{
                medium: {**facts, "encoder_calls": variant.encoder_calls(medium)}
                for medium, facts in variant.media.items()
            },
        },
        "uses_image": model.fusion.uses_image,
        "device": str(model.device),
        "bf16": uses_bfloat16(variant.config.training),
        "threads": torch.get_num_threads(),
        "seconds": seconds,
        "memory": peak_memory(),
        "disk": {"kept": size_of(folder), "scratch": scratch},
        "files": {name: file_digest(folder / name) for name in (COUNTS, GATES)},
        **measured,
    }
