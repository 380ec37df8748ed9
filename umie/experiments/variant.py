"""What a cell of a grid and a single training run share: tokenizer, mixture, text-only start, scores of all asked."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from umie.experiments.data_sets import Corpus, DataSet
from umie.experiments.scored_tasks import Asked, file_name
from umie.files import atomic_folder
from umie.records import Record, write_jsonl

if TYPE_CHECKING:
    from umie.model import UmieModel
    from umie.processor import UmieProcessor
    from umie.training import Mixture

Wording = Mapping[str, Mapping[str, Any]]  # what goes before the tasks' options, by task

DATA_VOCAB_SIZE = 4096
TEXT_START_SEED = 1_000_003  # far from any seed a user gives, so that no record of the data set is drawn again


def tokenizer_of(decoder: Mapping[str, Any], sets: Sequence[DataSet], wording: Wording) -> Any:
    """Return a decoder's tokenizer: one trained on the data where it has random weights and no checkpoint."""
    from umie.composition import checkpoint_of, default_tokenizer, tokenizer_texts
    from umie.tokenization import train_tokenizer

    if checkpoint_of(decoder) is not None or all(one.is_synthetic for one in sets):
        return default_tokenizer(decoder)
    texts = itertools.chain.from_iterable(
        tokenizer_texts(one.read("train"), one.built(wording).values()) for one in sets
    )
    return train_tokenizer(texts, DATA_VOCAB_SIZE)


def mixture_of(
    data: Corpus, records: Mapping[str, Sequence[Record]], wording: Wording, processor: UmieProcessor
) -> Mixture:
    """Return the queries of some data sets, each with its own label schemas, in the shares that the corpus names.

    Args:
        data: the corpus.
        records: the training records of the sets that are trained on, by their name.
        wording: of the instructions.
        processor: encodes the queries.
    """
    from umie.evaluation.queries import QueryDataset
    from umie.training import Mixture

    sources = [
        (name, QueryDataset(own, list(data.sets[name].built(wording).values()), processor), data.weights[name])
        for name, own in records.items()
    ]
    return Mixture(sources, data.sampling.strategy, data.sampling.temperature)


def train_text_start(
    decoder: Mapping[str, Any],
    data: Corpus,
    sets: Sequence[DataSet],
    wording: Wording,
    *,
    training: Mapping[str, Any],
    records: int | None,
    seed: int,
    folder: Path | None,
    on_step: Callable[[int, int, float], None],
) -> dict[str, Any]:
    """Train a decoder on text alone and write it as a checkpoint folder: what stands in for a pretrained one.

    Args:
        decoder: name and options.
        data: the corpus.
        sets: those whose texts it learns from.
        wording: of the instructions.
        training: options of TrainingConfig.
        records: how many to draw in their place, for the embedded data set; None takes the sets' own.
        seed: of its batches.
        folder: where it is written; None in a process that writes nothing.
        on_step: as for ``train``.
    """
    from umie.composition import compose
    from umie.data.synthetic import SyntheticConfig, scenes
    from umie.evaluation.queries import QueryDataset
    from umie.training import Mixture, TrainingConfig, train

    tokenizer = tokenizer_of(decoder, sets, wording)
    model, processor = compose(fusion="text_only", decoder=decoder, tasks=data.task_options, tokenizer=tokenizer)
    if records is None:
        texts = {one.name: _without_images(one.read("train")) for one in sets}
        mixture = mixture_of(data, texts, wording, processor)
    else:  # one draw for all the tasks that are trained on
        drawn = SyntheticConfig(seed=TEXT_START_SEED, train=records)
        own = _without_images(scene.record for scene in scenes(drawn, "train"))
        tasks = {name: task for one in reversed(sets) for name, task in one.built(wording).items()}
        ordered = [tasks[name] for name in data.tasks if name in tasks]
        mixture = Mixture([(sets[0].name, QueryDataset(own, ordered, processor), 1.0)])
    measured = train(model, processor, mixture, TrainingConfig(**training), seed=seed, on_step=on_step)
    if folder is not None:
        with atomic_folder(folder) as partial:
            model.decoder.save_checkpoint(partial)
            processor.tokenizer.save_pretrained(str(partial))
    return measured


def _without_images(records: Iterable[Record]) -> list[Record]:
    return [replace(record, image=None) for record in records]


def score_all(
    model: UmieModel,
    processor: UmieProcessor,
    data: Corpus,
    scored: Iterable[Asked],
    records: Mapping[str, Sequence[Record]],
    wording: Wording,
    *,
    batch_size: int,
    constrained: bool,
    generation: Mapping[str, Any],
    on_progress: Callable[[float, int], None] = lambda done, total: None,
    folder: Path | None = None,
) -> tuple[dict[str, Any], dict[str, list[float]]]:
    """Score everything that is asked.

    Args:
        model: any variant.
        processor: its processor.
        data: the corpus.
        scored: what is asked.
        records: the records of each data set.
        wording: of the instructions, where what is asked names none of its own.
        batch_size: queries in one call of generate.
        constrained: decode under each task's grammar.
        generation: options for transformers' generate.
        on_progress: called with what is done, in parts of one of the things asked, and their number.
        folder: where predictions are written, one JSONL file for each thing asked.

    Returns:
        By key the metrics, those of gate health among them, and the gates of the queries about an image.
    """
    from umie.evaluation import SourcePredictions, evaluate

    scored = list(scored)
    metrics: dict[str, Any] = {}
    gates: dict[str, list[float]] = {}
    sources: dict[tuple[str, str], SourcePredictions] = {}
    for index, one in enumerate(scored):
        tasks = data.sets[one.data_set].built(wording if one.instruction is None else one.instruction)
        stage = one.data_set, json.dumps(one.instruction)

        def on_batch(done: int, total: int, index: int = index) -> None:
            on_progress(index + done / total, len(scored))

        result = evaluate(
            model,
            processor,
            records[one.data_set],
            tasks[one.task],
            batch_size=batch_size,
            constrained=constrained,
            events=one.events,
            sources=sources.setdefault(stage, SourcePredictions(tasks)),
            on_batch=on_batch,
            **generation,
        )
        metrics[one.key] = result.scores
        if result.is_oracle:
            metrics[one.key]["oracle"] = "gold events"
        if result.gates:
            metrics[one.key] |= gate_health(result.gates)
            gates[one.key] = result.gates
        if folder is not None:
            write_jsonl(folder / f"{file_name(one.key)}.jsonl", result.predictions)
    return metrics, gates


def gate_health(gates: Sequence[float]) -> dict[str, float]:
    """Return the mean gate and the share of gates at or below 0, where the visual path starves."""
    return {
        "gate_mean": sum(gates) / len(gates),
        "gate_closed": sum(gate <= 0 for gate in gates) / len(gates),
    }
