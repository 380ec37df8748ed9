"""Train and score one variant from its config; shared by ``umie train`` and the cells of a grid."""

from __future__ import annotations

import itertools
import json
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from umie.errors import UmieError, UnknownNameError
from umie.evaluation.gates import gate_summary
from umie.experiments.choices import Wording
from umie.experiments.config import RunConfig
from umie.experiments.data_sets import Corpus, DataSet
from umie.experiments.features import EncoderCalls, store_features
from umie.experiments.progress import Progress
from umie.experiments.scored_tasks import ScoredTask, averaged, scored_tasks
from umie.files import atomic_folder
from umie.records import Record, write_jsonl
from umie.training.config import Checkpoints

if TYPE_CHECKING:
    from umie.model import UmieModel
    from umie.processor import UmieProcessor
    from umie.training import Mixture

DATA_VOCAB_SIZE = 4096
WARM_START_SEED = 1_000_003  # unlikely as a user's seed, so that the records differ from those of the data set
DEV_MEAN = "mean_f1"

Records = Mapping[str, Sequence[Record]]  # records by data set


@dataclass
class Trained:
    """A trained variant.

    Args:
        model: the model with its last weights; see ``load_best``.
        processor: its processor.
        mixture: the training queries.
        measured: the result of ``train``.
        images: the result of ``store_features``.
        encoder_calls: counter of the images that passed through the encoder; None without an encoder that runs.
        truncated: sentences about truncated inputs and answers.
        seconds: the duration of encoding images and of training.
    """

    model: UmieModel
    processor: UmieProcessor
    mixture: Mixture
    measured: dict[str, Any]
    images: dict[str, Any]
    encoder_calls: EncoderCalls | None
    truncated: list[str]
    seconds: dict[str, float] = field(default_factory=dict)


def train_warm_start(config: RunConfig, corpus: Corpus, folder: Path | None, progress: Progress) -> dict[str, Any]:
    """Train the decoder on text only and save it as a checkpoint, as a substitute for a pretrained one.

    Args:
        config: the run, with options in ``warm_start``.
        corpus: its data.
        folder: the directory to write to; None in processes that do not write.
        progress: the progress display.
    """
    from umie.composition import compose
    from umie.data.synthetic import SyntheticConfig, scenes
    from umie.evaluation import QueryDataset
    from umie.training import Mixture, train

    start = config.warm_start
    if start is None:
        raise ValueError("the config has no warm_start")
    sets = corpus.training_sets(config.trained_on)
    decoder = config.parts["decoder"]
    tokenizer = tokenizer_of(decoder, sets, config.wording)
    model, processor = compose(fusion="text_only", decoder=decoder, tasks=corpus.task_options, tokenizer=tokenizer)
    if start.records is None:
        texts = {one.name: _without_images(one.read("train")) for one in sets}
        mixture = mixture_of(corpus, texts, config.wording, processor)
    else:
        drawn = SyntheticConfig(seed=WARM_START_SEED, train=start.records)
        own = _without_images(scene.record for scene in scenes(drawn, "train"))
        tasks = {name: task for one in reversed(sets) for name, task in one.built(config.wording).items()}
        ordered = [tasks[name] for name in corpus.tasks if name in tasks]
        mixture = Mixture([(sets[0].name, QueryDataset(own, ordered, processor), 1.0)])
    progress.phase("warm start", start.training.num_steps(len(mixture)))
    measured = train(
        model,
        processor,
        mixture,
        start.training,
        seed=start.seed,
        on_step=lambda step, total, loss: progress.advance(step, loss),
    )
    if folder is not None:
        with atomic_folder(folder) as partial:
            model.decoder.save_checkpoint(partial)
            processor.tokenizer.save_pretrained(str(partial))
    return measured


def train_variant(
    config: RunConfig,
    corpus: Corpus,
    records: Mapping[str, Records],
    *,
    warm_start: str | None,
    store: Path,
    progress: Progress,
    output: Path | None = None,
) -> Trained:
    """Build a variant, encode its images, and train it.

    Args:
        config: the run.
        corpus: its data.
        records: the records of ``train`` and of the scored splits, by split and data set.
        warm_start: the checkpoint directory from ``train_warm_start``; None starts from the decoder without it.
        store: directory for the features of frozen encoders, unless the config names one.
        progress: the progress display.
        output: directory of the checkpoints. If it contains checkpoints of this run, training resumes exactly from
            the newest.

    Raises:
        UmieError: an answer would be truncated, or ``compose`` or ``train`` fails.
    """
    import torch
    from accelerate import PartialState

    from umie.training import is_over, last_checkpoint, state_of, train

    state = PartialState(cpu=not torch.cuda.is_available())
    progress.phase("building the variant")
    torch.manual_seed(config.seed)
    model, processor = build_variant(config, corpus, warm_start)
    model.to(state.device)
    calls = None if model.encoder is None or model.encoder.reads_features else EncoderCalls(model.encoder)
    everything = [record for sets in records.values() for own in sets.values() for record in own]
    options = {**config.features.model_dump(), "folder": config.features.folder or str(store)}
    with state.main_process_first():
        progress.phase("encoding images", 1)
        images = store_features(
            model, processor, everything, options, lambda done, total: progress.advance(done / total), progress.note
        )
    progress.phase("encoding texts")
    mixture = mixture_of(corpus, records["train"], config.wording, processor)
    truncated = _check_lengths(config, processor, mixture)
    dev = DevScores(config, corpus, processor, records) if _has_dev(config, records) else None
    if dev is not None:
        dev.check_metric()
    elif config.checkpoints is not None and config.checkpoints.early_stopping_patience is not None:
        raise UmieError("checkpoints.early_stopping_patience needs dev scores, and no data set has a dev split")
    steps = config.training.num_steps(len(mixture))
    shares = ", ".join(f"{name} {share:.0%}" for name, share in zip(mixture.names, mixture.probabilities, strict=True))
    progress.note(f"{len(mixture)} training queries ({shares}), {steps} steps of {config.training.batch_size}")
    for sentence in truncated:
        progress.note(sentence)
    resumed = None if output is None else last_checkpoint(output)
    if resumed is not None:
        ended = is_over(state_of(resumed), steps, config.checkpoints or Checkpoints())
        progress.note(f"finished at {resumed.name}: scored again" if ended else f"resuming from {resumed.name}")
    progress.phase("train", steps)
    started = time.perf_counter()
    measured = train(
        model,
        processor,
        mixture,
        config.training,
        seed=config.seed,
        on_step=lambda step, total, loss: progress.advance(step, loss),
        on_log=lambda step, logs: _note_scores(progress, step, steps, logs),
        output=output,
        checkpoints=config.checkpoints,
        dev=None if dev is None or output is None else dev,
    )
    seconds = {"encode": images["seconds"], "train": time.perf_counter() - started}
    return Trained(model, processor, mixture, measured, images, calls, truncated, seconds)


def load_best(trained: Trained, output: Path) -> None:
    """Load the checkpoint with the best dev score into the model, if there are dev scores."""
    from umie.training import load_weights

    if "best_step" in trained.measured:
        load_weights(trained.model, output / f"checkpoint-{trained.measured['best_step']}")


def build_variant(config: RunConfig, corpus: Corpus, warm_start: str | None) -> tuple[UmieModel, UmieProcessor]:
    """Return the model and the processor before training."""
    from umie.composition import compose
    from umie.model import UmieModel
    from umie.processor import UmieProcessor

    lengths = {"max_input_tokens": config.max_input_tokens, "max_target_tokens": config.max_target_tokens}
    options: dict[str, Any] = {name: value for name, value in lengths.items() if value is not None}
    options["missing_images"] = config.missing_images
    if config.start_from is not None:
        before = UmieProcessor.from_pretrained(config.start_from)
        options = {"max_input_tokens": before.max_input_tokens, "max_target_tokens": before.max_target_tokens} | options
        model: UmieModel = UmieModel.from_pretrained(config.start_from)
        return model, UmieProcessor(before.tokenizer, before.encoder, corpus.task_options, **options)
    parts = dict(config.parts)
    if warm_start is not None:
        parts["decoder"] = {"name": parts["decoder"]["name"], "source": warm_start}
    tokenizer = tokenizer_of(parts["decoder"], corpus.training_sets(config.trained_on), config.wording)
    return compose(**parts, tasks=corpus.task_options, tokenizer=tokenizer, **options)


def records_of(config: RunConfig, corpus: Corpus, split: str) -> dict[str, list[Record]]:
    """Return the records of a split by data set: for ``train`` only of the sets to train on."""
    trained = corpus.training_sets(config.trained_on)
    sets = trained if split == "train" else [one for one in corpus.sets.values() if one.tasks_in(split)]
    return {one.name: one.read(split) for one in sets}


def tokenizer_of(decoder: Mapping[str, Any], sets: Sequence[DataSet], wording: Wording) -> Any:
    """Return the tokenizer of a decoder, which is trained on the data if the decoder has no checkpoint."""
    from umie.composition import checkpoint_of, default_tokenizer, tokenizer_texts
    from umie.tokenization import train_tokenizer

    if checkpoint_of(decoder) is not None or all(one.is_synthetic for one in sets):
        return default_tokenizer(decoder)
    texts = itertools.chain.from_iterable(
        tokenizer_texts(one.read("train"), one.built(wording).values()) for one in sets
    )
    return train_tokenizer(texts, DATA_VOCAB_SIZE)


def mixture_of(corpus: Corpus, records: Records, wording: Wording, processor: UmieProcessor) -> Mixture:
    """Return the training queries, with the label schemas of each data set and the shares of the corpus.

    Args:
        corpus: all data.
        records: the training records by data set.
        wording: the wording of the instructions.
        processor: the processor that encodes the queries.
    """
    from umie.evaluation import QueryDataset
    from umie.training import Mixture

    sources = [
        (name, QueryDataset(own, list(corpus.sets[name].built(wording).values()), processor), corpus.weights[name])
        for name, own in records.items()
    ]
    return Mixture(sources, corpus.sampling.strategy, corpus.sampling.temperature)


def score_variant(
    config: RunConfig,
    corpus: Corpus,
    model: UmieModel,
    processor: UmieProcessor,
    scored: Iterable[ScoredTask],
    records: Records,
    *,
    progress: Progress | None = None,
    folder: Path | None = None,
) -> tuple[dict[str, Any], dict[str, list[float]]]:
    """Score a variant.

    Args:
        config: the run, with options in ``evaluation``.
        corpus: its data.
        model: the variant.
        processor: its processor.
        scored: the tasks to score; see ``scored_tasks``.
        records: the records of each data set.
        progress: the progress display.
        folder: the directory for predictions, one JSONL file per scored task.

    Returns:
        By key, the metrics, including those of the gate, and the gates of the queries about images.
    """
    from umie.evaluation import SourcePredictions, evaluate

    scored = list(scored)
    metrics: dict[str, Any] = {}
    gates: dict[str, list[float]] = {}
    sources: dict[tuple[str, str], SourcePredictions] = {}
    for index, one in enumerate(scored):
        tasks = corpus.sets[one.data_set].built(config.wording if one.wording is None else one.wording)
        stage = one.data_set, json.dumps(one.wording)

        def on_batch(done: int, total: int, index: int = index) -> None:
            if progress is not None:
                progress.advance((index + done / total) / len(scored))

        result = evaluate(
            model,
            processor,
            records[one.data_set],
            tasks[one.task],
            batch_size=config.evaluation.batch_size,
            constrained=config.evaluation.constrained,
            events=one.events,
            sources=sources.setdefault(stage, SourcePredictions(tasks)),
            on_batch=on_batch,
            **config.evaluation.generation,
        )
        metrics[one.key] = result.scores
        if result.is_oracle:
            metrics[one.key]["oracle"] = "gold events"
        if result.gates:
            metrics[one.key] |= gate_health(result.gates)
            gates[one.key] = result.gates
        if folder is not None:
            write_jsonl(folder / f"{one.file_name}.jsonl", result.predictions)
    return metrics, gates


class DevScores:
    """Scorer of a model on the dev split during training, which selects the best checkpoint."""

    def __init__(
        self, config: RunConfig, corpus: Corpus, processor: UmieProcessor, records: Mapping[str, Records]
    ) -> None:
        self._config, self._corpus, self._processor, self._records = config, corpus, processor, records
        self._scored = scored_tasks(config, corpus, "dev")

    def check_metric(self) -> None:
        """Raise UmieError if the metric of the checkpoints is not a dev score."""
        names = [DEV_MEAN, *(f"{_name(one)}_f1" for one in self._scored)]
        metric = DEV_MEAN if self._config.checkpoints is None else self._config.checkpoints.metric_for_best_model
        if metric not in names:
            raise UnknownNameError("checkpoints.metric_for_best_model", metric, names)

    def __call__(self, model: UmieModel) -> dict[str, float]:
        """Return the F1 and the mean gate of each scored task, and the mean F1."""
        was_training = model.training
        counts, unreadable = Counter(self._processor.counts), dict(self._processor.unreadable)
        try:
            metrics, _ = score_variant(
                self._config, self._corpus, model, self._processor, self._scored, self._records["dev"]
            )
        finally:
            model.train(was_training)
            self._processor.reset_counts()  # restore the counts of the training split
            self._processor.counts.update(counts)
            self._processor.unreadable.update(unreadable)
        names = {one.key: _name(one) for one in self._scored}
        found = {f"{names[key]}_f1": float(values["f1"]) for key, values in metrics.items()}
        found |= {f"{names[key]}_gate": values["gate_mean"] for key, values in metrics.items() if "gate_mean" in values}
        learned = {one.key for one in self._scored if one.data_set in self._records["train"]}
        keys = [key for key in averaged(self._config, self._scored) if key in metrics]
        keys = [key for key in keys if key in learned] or keys  # held-out sets must not select the checkpoint
        return {DEV_MEAN: sum(float(metrics[key]["f1"]) for key in keys) / len(keys), **found}


def gate_health(gates: Sequence[float]) -> dict[str, float]:
    """Return the mean gate and the share of gates at or below 0, where the visual path gets no gradient."""
    summary = gate_summary(gates)
    return {"gate_mean": summary["mean"], "gate_closed": summary["closed"]}


def _has_dev(config: RunConfig, records: Mapping[str, Records]) -> bool:
    return config.checkpoints is not None and bool(records.get("dev")) and not config.training.fsdp


def _name(one: ScoredTask) -> str:
    """Return the name of a score for a key: ``twitter17_mner`` for ``twitter17 mner``."""
    return one.key.replace(" ", "_")


def _without_images(records: Iterable[Record]) -> list[Record]:
    return [replace(record, image=None) for record in records]


def _check_lengths(config: RunConfig, processor: UmieProcessor, mixture: Mixture) -> list[str]:
    """Return sentences about training queries that were truncated.

    Raises:
        UmieError: an answer was truncated, and the config does not allow it.
    """
    counts = processor.counts
    found = []
    if counts["truncated_inputs"]:
        found.append(
            f"{counts['truncated_inputs']} of {len(mixture)} training inputs have more than "
            f"{processor.max_input_tokens} tokens (max_input_tokens); the end of their text is cut off"
        )
    if counts["truncated_targets"]:
        longest = (
            f"{counts['truncated_targets']} of {len(mixture)} training targets have more than "
            f"{processor.max_target_tokens} tokens"
        )
        if not config.allow_truncated_targets:
            raise UmieError(
                f"{longest}, so their ends would be cut off: increase max_target_tokens, or set "
                "allow_truncated_targets: true"
            )
        found.append(f"{longest} and are cut off (allow_truncated_targets)")
    return found


def _note_scores(progress: Progress, step: int, steps: int, logs: Mapping[str, float]) -> None:
    scores = {name.removeprefix("eval_"): value for name, value in logs.items() if name.startswith("eval_")}
    if scores:
        shown = " ".join(f"{name.removesuffix('_f1')} {value:.3f}" for name, value in scores.items() if "_f1" in name)
        progress.note(f"step {step} of {steps}: dev F1 {shown}")
