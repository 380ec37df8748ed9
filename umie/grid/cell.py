"""One job of a grid in a process of its own: the warm start, or one cell. Run as ``python -m umie.grid.cell JOB``.

The job is a JSON file. Progress and the result go to standard output as JSON lines; the process ends when its
standard input does, so that no cell outlives a grid that was killed.
"""

from __future__ import annotations

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

from umie.corpus import Corpus, DataSet
from umie.files import atomic_write
from umie.grid.asked import Asked, file_name
from umie.grid.features import EncoderCalls, store_features
from umie.grid.parts import checkpoint_of
from umie.grid.plan import load_plugins
from umie.records import Record, write_jsonl


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
    data = Corpus.from_json(job["data"])
    return _warm_start(job, data) if job["kind"] == "warm_start" else _cell(job, data)


def _warm_start(job: Mapping[str, Any], data: Corpus) -> dict[str, Any]:
    """Train the decoder on text alone and save it as a checkpoint folder."""
    from umie.composition import compose
    from umie.data.synthetic import SyntheticConfig, scenes
    from umie.training import Mixture, TrainingConfig, train

    sets = data.trained(job["train_on"])
    decoder = job["parts"]["decoder"]
    tokenizer = _tokenizer(decoder, sets, job["instruction"])
    model, processor = compose(fusion="text_only", decoder=decoder, tasks=data.task_options, tokenizer=tokenizer)
    if job["records"] is None:
        read = {one.name: one.read("train") for one in sets}
    else:
        drawn = SyntheticConfig(seed=WARM_START_SEED, train=job["records"])
        read = {sets[0].name: [scene.record for scene in scenes(drawn, "train")]}
    texts = {name: [dataclasses.replace(record, image=None) for record in records] for name, records in read.items()}
    if job["records"] is not None:  # one draw for all the tasks that are trained on
        tasks = {name: task for one in reversed(sets) for name, task in one.built(job["instruction"]).items()}
        ordered = [tasks[name] for name in data.tasks if name in tasks]
        sources = [(sets[0].name, _queries(texts[sets[0].name], ordered, processor), 1.0)]
    else:
        sources = [
            (one.name, _queries(texts[one.name], one.built(job["instruction"]).values(), processor), weight)
            for one, weight in ((one, data.weights[one.name]) for one in sets)
        ]
    measured = train(
        model,
        processor,
        Mixture(sources, data.sampling.strategy, data.sampling.temperature),
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


GATES = "gates.json"  # in a cell's folder: the gate of every query about a picture, by what is scored
DATA_VOCAB_SIZE = 4096
WARM_START_SEED = 1_000_003  # far from any seed a user gives, so that no record of the data set is drawn again


def _cell(job: Mapping[str, Any], data: Corpus) -> dict[str, Any]:
    """Train a variant on all its data sets together, evaluate it, and save its predictions."""
    import torch

    from umie.composition import compose
    from umie.training import Mixture, TrainingConfig, train, visual_gradient

    parts, split, wording = job["parts"], job["evaluation"]["split"], job["instruction"]
    trained_on = data.trained(job["train_on"])
    model, processor = compose(
        **{slot: parts[slot] for slot in ("encoder", "fusion", "decoder", "visual_embedding")},
        tasks=data.task_options,
        tokenizer=_tokenizer(parts["decoder"], trained_on, wording),
        missing_pictures=job["missing_pictures"],
    )
    scored = [Asked(**given) for given in job["asked"]]
    training = {one.name: one.read("train") for one in trained_on}
    evaluated = {name: data.sets[name].read(split) for name in dict.fromkeys(one.data_set for one in scored)}
    model.to("cuda" if torch.cuda.is_available() else "cpu")  # as the Trainer will, but pictures are encoded before
    calls = None if model.encoder is None or model.encoder.is_lookup else EncoderCalls(model.encoder)
    pictures = store_features(
        model,
        processor,
        [record for records in (*training.values(), *evaluated.values()) for record in records],
        job["features"],
        lambda done, total: _say(event="progress", phase="encode", done=done, total=total),
        lambda sentence: print(sentence, file=sys.stderr),  # noqa: T201 # the job's log
    )
    dataset = Mixture(
        [
            (one.name, _queries(training[one.name], one.built(wording).values(), processor), data.weights[one.name])
            for one in trained_on
        ],
        data.sampling.strategy,
        data.sampling.temperature,
    )
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
    metrics, gates = _evaluate(job, model, processor, data, scored, evaluated)
    ended = time.perf_counter()
    every_gate = [gate for values in gates.values() for gate in values]
    with atomic_write(Path(job["folder"]) / GATES) as file:
        json.dump({key: [round(gate, 6) for gate in values] for key, values in gates.items()}, file)
    return {
        "metrics": metrics,
        "health": {"visual_gradient": gradient, **(_gate_health(every_gate) if every_gate else {})},
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "trainable_parameters": sum(p.numel() for p in model.parameters() if p.requires_grad),
        "counts": {"train": train_counts, split: dict(processor.counts)},
        "shares": dict(zip(dataset.names, dataset.probabilities, strict=True)),
        "pictures": {
            **pictures,
            "encoder_calls": 0 if calls is None else calls.number,
            "boxes": dict(getattr(processor.preprocessor, "counts", {})),  # of looked-up features: all, and left out
        },
        "uses_picture": model.fusion.uses_picture,
        "device": str(model.device),
        "threads": torch.get_num_threads(),
        "seconds": {"encode": pictures["seconds"], "train": trained - started, "evaluate": ended - trained},
        **measured,
    }


def _evaluate(
    job: Mapping[str, Any],
    model: Any,
    processor: Any,
    data: Corpus,
    scored: Sequence[Asked],
    records: Mapping[str, Sequence[Record]],
) -> tuple[dict[str, Any], dict[str, list[float]]]:
    """Return the metrics and the gates of everything that is scored, and save the predictions."""
    from umie.evaluation import evaluate

    metrics: dict[str, Any] = {}
    gates: dict[str, list[float]] = {}
    detected: dict[tuple[str, str], list[Record]] = {}
    for index, one in enumerate(scored):
        tasks = data.sets[one.data_set].built(job["instruction"] if one.instruction is None else one.instruction)
        stage = one.data_set, json.dumps(one.instruction)
        result = evaluate(
            model,
            processor,
            records[one.data_set],
            tasks[one.task],
            batch_size=job["evaluation"]["batch_size"],
            constrained=job["evaluation"]["constrained"],
            events=one.events,
            med=tasks.get("med"),
            detected=detected.get(stage),
            on_batch=lambda done, total, index=index: _say(  # type: ignore[misc] # mypy loses the default's type
                event="progress", phase="evaluate", done=index + done / total, total=len(scored)
            ),
            **job["evaluation"]["generation"],
        )
        metrics[one.key] = result.scores
        if result.is_oracle:
            metrics[one.key]["oracle"] = "gold events"
        if one.task == "med":
            detected[stage] = result.predictions
        if result.gates:
            metrics[one.key] |= _gate_health(result.gates)
            gates[one.key] = result.gates
        write_jsonl(Path(job["folder"]) / f"{file_name(one.key)}.jsonl", result.predictions)
    return metrics, gates


def _queries(records: Sequence[Record], tasks: Iterable[Any], processor: Any) -> Any:
    """Return the queries of all tasks that anything is asked for."""
    from umie.query_dataset import QueryDataset

    return QueryDataset(records, list(tasks), processor)


def _gate_health(gates: Sequence[float]) -> dict[str, float]:
    """Return the mean gate and the share of gates at or below 0, where the visual path starves."""
    return {
        "gate_mean": sum(gates) / len(gates),
        "gate_closed": sum(gate <= 0 for gate in gates) / len(gates),
    }


def _tokenizer(decoder: Mapping[str, Any], sets: Sequence[DataSet], wording: Mapping[str, Mapping[str, Any]]) -> Any:
    """Return a decoder's tokenizer: one trained on the data where it has random weights and no checkpoint."""
    from umie.composition import default_tokenizer, tokenizer_texts
    from umie.tokenization import train_tokenizer

    if checkpoint_of(decoder) is not None or all(one.is_synthetic for one in sets):
        return default_tokenizer(decoder)
    texts = itertools.chain.from_iterable(
        tokenizer_texts(one.read("train"), one.built(wording).values()) for one in sets
    )
    return train_tokenizer(texts, DATA_VOCAB_SIZE)


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
