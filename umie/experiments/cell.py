"""One job of a grid in a process of its own: the warm start, or one cell. See ``umie.experiments.job``.

The job is a JSON file. Progress and the result go to standard output as JSON lines; the process ends when its
standard input does, so that no cell outlives a grid that was killed.
"""

from __future__ import annotations

import json
import sys
import time
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from umie.experiments.data_sets import Corpus
from umie.experiments.features import EncoderCalls, store_features
from umie.experiments.scored_tasks import Asked
from umie.experiments.variant import gate_health, mixture_of, score_all, tokenizer_of, train_text_start
from umie.files import atomic_write
from umie.registry import load_plugins
from umie.versions import versions


def main(job_file: str) -> int:
    """Run the job of a file; return the exit code, 0 also where the cell crashed and said so."""
    job = json.loads(Path(job_file).read_text(encoding="utf-8"))
    start = time.perf_counter()
    try:
        result = {"status": "ok", **_run(job)}
    except Exception as error:
        result = {
            "status": "crashed",
            "error": f"{type(error).__name__}: {error}",
            "traceback": traceback.format_exc(),
        }
    result["seconds"] = {**result.get("seconds", {}), "total": time.perf_counter() - start}
    line = {**job["identity"], **result, "versions": versions("torch", "transformers")}
    with atomic_write(job["result"]) as file:
        json.dump(line, file, ensure_ascii=False)
    _say(event="result")
    return 0


def _run(job: Mapping[str, Any]) -> dict[str, Any]:
    import torch
    from transformers.utils import logging

    torch.set_num_threads(job["num_threads"])
    logging.disable_progress_bar()
    load_plugins(job["plugins"])
    torch.manual_seed(job["identity"]["seed"])
    data = Corpus.from_json(job["data"])
    return _warm_start(job, data) if job["kind"] == "warm_start" else _cell(job, data)


def _warm_start(job: Mapping[str, Any], data: Corpus) -> dict[str, Any]:
    """Train the decoder on text alone and save it as a checkpoint folder."""
    measured = train_text_start(
        job["parts"]["decoder"],
        data,
        data.trained(job["train_on"]),
        job["instruction"],
        training=job["training"],
        records=job["records"],
        seed=job["identity"]["seed"],
        folder=Path(job["folder"]),
        on_step=_on_step,
    )
    return {"metrics": {}, **measured}


GATES = "gates.json"  # in a cell's folder: the gate of every query about an image, by what is scored


def _cell(job: Mapping[str, Any], data: Corpus) -> dict[str, Any]:
    """Train a variant on all its data sets together, evaluate it, and save its predictions."""
    import torch

    from umie.composition import compose
    from umie.training import TrainingConfig, train, visual_gradient

    parts, split, wording = job["parts"], job["evaluation"]["split"], job["instruction"]
    trained_on = data.trained(job["train_on"])
    model, processor = compose(
        **{slot: parts[slot] for slot in ("encoder", "fusion", "decoder", "visual_embedding")},
        tasks=data.task_options,
        tokenizer=tokenizer_of(parts["decoder"], trained_on, wording),
        missing_images=job["missing_images"],
    )
    scored = [Asked(**given) for given in job["asked"]]
    training = {one.name: one.read("train") for one in trained_on}
    evaluated = {name: data.sets[name].read(split) for name in dict.fromkeys(one.data_set for one in scored)}
    model.to("cuda" if torch.cuda.is_available() else "cpu")  # as the Trainer will, but images are encoded before
    calls = None if model.encoder is None or model.encoder.is_lookup else EncoderCalls(model.encoder)
    images = store_features(
        model,
        processor,
        [record for records in (*training.values(), *evaluated.values()) for record in records],
        job["features"],
        lambda done, total: _say(event="progress", phase="encode", done=done, total=total),
        lambda sentence: print(sentence, file=sys.stderr),  # noqa: T201 # the job's log
    )
    dataset = mixture_of(data, training, wording, processor)
    started = time.perf_counter()
    measured = train(
        model,
        processor,
        dataset,
        TrainingConfig(**job["training"]),
        seed=job["identity"]["seed"],
        on_step=_on_step,
    )
    trained = time.perf_counter()
    size = min(len(dataset), job["training"].get("batch_size", 16))
    probe = [dataset[index * len(dataset) // size] for index in range(size)]  # of every set
    gradient = visual_gradient(model, processor.collate(probe))
    train_counts = dict(processor.counts)
    processor.reset_counts()
    evaluation = job["evaluation"]
    metrics, gates = score_all(
        model,
        processor,
        data,
        scored,
        evaluated,
        wording,
        **{name: evaluation[name] for name in ("batch_size", "constrained", "generation")},
        on_progress=lambda done, total: _say(event="progress", phase="evaluate", done=done, total=total),
        folder=Path(job["folder"]),
    )
    ended = time.perf_counter()
    every_gate = [gate for values in gates.values() for gate in values]
    with atomic_write(Path(job["folder"]) / GATES) as file:
        json.dump({key: [round(gate, 6) for gate in values] for key, values in gates.items()}, file)
    return {
        "metrics": metrics,
        "health": {"visual_gradient": gradient, **(gate_health(every_gate) if every_gate else {})},
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "trainable_parameters": sum(p.numel() for p in model.parameters() if p.requires_grad),
        "counts": {"train": train_counts, split: dict(processor.counts)},
        "shares": dict(zip(dataset.names, dataset.probabilities, strict=True)),
        "images": {
            **images,
            "encoder_calls": 0 if calls is None else calls.number,
            "boxes": dict(getattr(processor.preprocessor, "counts", {})),  # of looked-up features: all, and left out
        },
        "uses_image": model.fusion.uses_image,
        "device": str(model.device),
        "threads": torch.get_num_threads(),
        "seconds": {"encode": images["seconds"], "train": trained - started, "evaluate": ended - trained},
        **measured,
    }


def _on_step(step: int, total: int, loss: float) -> None:
    if step % max(1, total // 100) == 0 or step == total:
        _say(event="progress", phase="train", done=step, total=total)


def _say(**event: Any) -> None:
    sys.stdout.write(json.dumps(event) + "\n")
    sys.stdout.flush()
