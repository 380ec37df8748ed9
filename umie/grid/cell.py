"""One job of a grid in a process of its own: the warm start, or one cell. Run as ``python -m umie.grid.cell JOB``.

The job is a JSON file. Progress and the result go to standard output as JSON lines; the process ends when its
standard input does, so that no cell outlives a grid that was killed.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import json
import os
import platform
import shutil
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from umie.errors import UmieError
from umie.files import atomic_write
from umie.grid.data import GridData
from umie.grid.plan import load_plugins
from umie.records import Record, Region, write_jsonl


def main(job_file: str) -> int:
    """Run the job of a file; return the exit code, 0 also where the cell crashed and said so."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
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
    line = {**job["identity"], **result, "versions": versions()}
    with atomic_write(job["result"]) as file:
        json.dump(line, file, ensure_ascii=False)
    _say(event="result")
    return 0


def versions() -> dict[str, str]:
    """Return the versions that a result depends on."""
    import torch
    import transformers

    import umie

    return {
        "umie": umie.__version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }


def _run(job: Mapping[str, Any]) -> dict[str, Any]:
    import torch
    from transformers.utils import logging

    torch.set_num_threads(job["num_threads"])
    logging.disable_progress_bar()
    load_plugins(job["plugins"])
    torch.manual_seed(job["identity"]["seed"])
    data = GridData(**job["data"])
    return _warm_start(job, data) if job["kind"] == "warm_start" else _cell(job, data)


def _warm_start(job: Mapping[str, Any], data: GridData) -> dict[str, Any]:
    """Train the decoder on text alone and save it as a checkpoint folder."""
    from umie.composition import compose
    from umie.data.synthetic import SyntheticConfig, scenes
    from umie.query_dataset import QueryDataset
    from umie.training import TrainingConfig, train

    if job["records"] is None:
        records: Iterable[Record] = data.read("train")
    else:
        drawn = SyntheticConfig(seed=WARM_START_SEED, train=job["records"])
        records = (scene.record for scene in scenes(drawn, "train"))
    texts = [dataclasses.replace(record, image=None) for record in records]
    decoder = job["parts"]["decoder"]
    tokenizer = _tokenizer(decoder.get("source", "tiny"), data)
    model, processor = compose(fusion="text_only", decoder=decoder, tasks=data.tasks, tokenizer=tokenizer)
    dataset = QueryDataset(texts, list(data.tasks), processor)
    measured = train(
        model,
        processor,
        dataset,
        TrainingConfig(**job["training"]),
        seed=job["identity"]["seed"],
        on_step=_on_step,
    )
    folder = Path(job["folder"])
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(dir=folder.parent, prefix=".part-"))
    model.decoder.save_checkpoint(partial)
    processor.tokenizer.save_pretrained(partial)
    partial.chmod(0o755)
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)
    return {"metrics": {}, **measured}


DATA_VOCAB_SIZE = 4096
WARM_START_SEED = 1_000_003  # far from any seed a user gives, so that no record of the data set is drawn again


def _cell(job: Mapping[str, Any], data: GridData) -> dict[str, Any]:
    """Train a variant on all tasks together, evaluate it, and save its predictions."""
    import torch

    from umie.composition import compose
    from umie.evaluation import evaluate
    from umie.query_dataset import QueryDataset
    from umie.training import TrainingConfig, train, visual_gradient

    parts = job["parts"]
    model, processor = compose(
        **{slot: parts[slot] for slot in ("encoder", "fusion", "decoder", "visual_embedding")},
        tasks=data.tasks,
        tokenizer=_tokenizer(parts["decoder"].get("source", "tiny"), data),
        missing_pictures=job["missing_pictures"],
    )
    tasks = list(data.tasks)
    split = job["evaluation"]["split"]
    training_records, records = data.read("train"), data.read(split)
    model.to("cuda" if torch.cuda.is_available() else "cpu")  # as the Trainer will, but pictures are encoded before
    calls = None if model.encoder is None or model.encoder.is_lookup else _EncoderCalls(model.encoder)
    pictures = _store_features(model, processor, [*training_records, *records], job["features"])
    dataset = QueryDataset(training_records, tasks, processor)
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
    probe = [dataset[index] for index in range(min(len(dataset), job["training"].get("batch_size", 16)))]
    gradient = visual_gradient(model, processor.collate(probe))
    train_counts = dict(processor.counts)
    processor.reset_counts()
    metrics: dict[str, Any] = {}
    gates: list[float] = []
    detected = None
    for index, task in enumerate(tasks):
        result = evaluate(
            model,
            processor,
            records,
            task,
            batch_size=job["evaluation"]["batch_size"],
            constrained=job["evaluation"]["constrained"],
            events=job["evaluation"]["events"],
            detected=detected,
            on_batch=lambda done, total, index=index: _say(  # type: ignore[misc] # mypy loses the default's type
                event="progress", phase="evaluate", done=index + done / total, total=len(tasks)
            ),
            **job["evaluation"]["generation"],
        )
        metrics[task] = result.scores
        if result.is_oracle:
            metrics[task]["oracle"] = "gold events"
        if task == "med":
            detected = result.predictions
        if result.gates:
            metrics[task] |= _gate_health(result.gates)
            gates += result.gates
        write_jsonl(Path(job["folder"]) / f"{task}.jsonl", result.predictions)
    evaluated = time.perf_counter()
    health = {"visual_gradient": gradient, **(_gate_health(gates) if gates else {})}
    return {
        "metrics": metrics,
        "health": health,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "trainable_parameters": sum(p.numel() for p in model.parameters() if p.requires_grad),
        "counts": {"train": train_counts, split: dict(processor.counts)},
        "pictures": {
            **pictures,
            "encoder_calls": 0 if calls is None else calls.number,
            "boxes": dict(getattr(processor.preprocessor, "counts", {})),  # of looked-up features: all, and left out
        },
        "uses_picture": model.fusion.uses_picture,
        "device": str(model.device),
        "threads": torch.get_num_threads(),
        "seconds": {"encode": pictures["seconds"], "train": trained - started, "evaluate": evaluated - trained},
        **measured,
    }


class _NoPictures:
    """Gives a fusion that does not look at pictures none, so that none is prepared."""

    def one(self, picture: Any, regions: Any = ()) -> Any:
        """Return no slots."""
        from umie.encoders.base import no_slots

        return no_slots()


class _EncoderCalls:
    """Counts the pictures that pass through an encoder, whoever calls it."""

    def __init__(self, encoder: Any) -> None:
        self._parts: list[Any] = []
        encoder.register_forward_hook(lambda module, arguments, output: self._parts.append(output.mask.any(1).sum()))

    @property
    def number(self) -> int:
        """Pictures so far."""
        return sum(int(part) for part in self._parts)


def _store_features(model: Any, processor: Any, records: Sequence[Record], store: Mapping[str, Any]) -> dict[str, Any]:
    """Let the processor read a frozen encoder's features from the grid's store, and fill in what that lacks.

    Returns:
        ``features``: ``stored``, ``made anew each time`` (the encoder learns, or there is no store), ``looked up``
        or ``not used``; how many ``pictures`` there are and are ``readable``, the fingerprint of a frozen ``encoder``,
        what the ``cache`` counted, and ``seconds``.
    """
    from umie.encoders import CachedEncoder, FeatureCache

    pictures = _pictures(records)
    report: dict[str, Any] = {"pictures": len(pictures), "seconds": 0.0}
    if model.encoder is None:
        processor.features = _NoPictures()
        return report | {"features": "not used"}
    if model.encoder.is_lookup:
        return report | {"features": "looked up"}
    if model.encoder.config.trainable or not store["enabled"]:
        return report | {"features": "made anew each time"}
    started = time.perf_counter()
    cache = FeatureCache(store["folder"], max_bytes=store["max_bytes"], on_event=_log)
    cached = CachedEncoder(model.encoder, cache)
    done = itertools.count(1)
    unreadable = 0

    def refuse(index: int, error: UmieError) -> None:
        nonlocal unreadable
        unreadable += 1  # the grid's policy decides when the picture is asked for

    cached.fill(
        pictures,
        on_item=lambda number: _say(event="progress", phase="encode", done=next(done), total=len(pictures)),
        on_error=refuse,
    )
    processor.features = cached
    seconds = time.perf_counter() - started
    return report | {
        "features": "stored",
        "encoder": cached.fingerprint,
        "readable": len(pictures) - unreadable,
        "cache": dataclasses.asdict(cache.stats),
        "seconds": seconds,
    }


def _pictures(records: Sequence[Record]) -> list[tuple[Path, Sequence[Region]]]:
    """Return each picture that lies where it may, with its regions, once."""
    found: dict[tuple[Path, Sequence[Region]], None] = {}
    for record in records:
        with contextlib.suppress(UmieError):
            path = record.image_path()
            if path is not None:
                found[path, record.regions] = None
    return list(found)


def _log(sentence: str) -> None:
    """Write a sentence to the job's log."""
    sys.stderr.write(sentence + "\n")


def _gate_health(gates: Sequence[float]) -> dict[str, float]:
    """Return the mean gate and the share of gates at or below 0, where the visual path starves."""
    return {
        "gate_mean": sum(gates) / len(gates),
        "gate_closed": sum(gate <= 0 for gate in gates) / len(gates),
    }


def _tokenizer(source: str, data: GridData) -> Any:
    """Return the tokenizer of a decoder: a preset without a warm start behind it gets one trained on the data."""
    from umie import tasks
    from umie.composition import default_tokenizer, tokenizer_texts
    from umie.decoders.t5 import PRESETS
    from umie.tokenization import train_tokenizer

    if data.is_synthetic or source not in PRESETS:
        return default_tokenizer({"source": source})
    built = [tasks.registry.build(name, **options) for name, options in data.tasks.items()]
    return train_tokenizer(tokenizer_texts(data.read("train"), built), DATA_VOCAB_SIZE)


def _on_step(step: int, total: int, loss: float) -> None:
    if step % max(1, total // 100) == 0 or step == total:
        _say(event="progress", phase="train", done=step, total=total)


def _say(**event: Any) -> None:
    sys.stdout.write(json.dumps(event) + "\n")
    sys.stdout.flush()


def _end_with_parent() -> None:
    """End the process when standard input closes: the grid that started it is gone."""
    sys.stdin.read()
    os._exit(1)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
