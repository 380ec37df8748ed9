"""Train and score one variant from its config; shared by ``umie train`` and the cells of a grid."""

from __future__ import annotations

import contextlib
import itertools
import json
import math
import time
import warnings
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from umie.checkpoints import write_manifest
from umie.errors import UmieError
from umie.experiments.choices import Wording
from umie.experiments.config import RunConfig
from umie.experiments.data_sets import Corpus
from umie.experiments.estimate import stores_texts
from umie.experiments.results import COUNTS, CURVES
from umie.experiments.scored_tasks import DEV_MEAN, ScoredTask, check_metric, dev_mean_keys, score_name, scored_tasks
from umie.experiments.training_queries import check_queries, tokenizer_of
from umie.files import atomic_folder, atomic_write, json_text
from umie.records import MEDIA, Medium, Record, write_jsonl
from umie.records.places import PLURALS
from umie.scoring.gates import gate_summary
from umie.training.config import Checkpoints

if TYPE_CHECKING:
    from umie.evaluation import SourcePredictions, TaskResult
    from umie.model import UmieModel
    from umie.processor import UmieProcessor
    from umie.tasks import Task
    from umie.training import Mixture

WARM_START_SEED = 1_000_003  # unlikely as a user's seed, so that the records differ from those of the data set

Records = Mapping[str, Sequence[Record]]  # records by data set


class Progress(Protocol):
    """Display of the phases of a run."""

    def phase(self, name: str, total: float | None = None) -> None:
        """Start a phase; ``total`` is the number of its steps, if known."""

    def advance(self, done: float, loss: float | None = None) -> None:
        """Report the number of finished steps of the phase."""

    def note(self, what: str) -> None:
        """Print a line."""


def train_warm_start(config: RunConfig, corpus: Corpus, folder: Path | None, progress: Progress) -> dict[str, Any]:
    """Train the decoder on text only, as a substitute for a pretrained one, and return the result of ``train``.

    The checkpoint is written to ``folder``, which is None in processes that do not write.
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
    processor.blind = frozenset(MEDIA)
    if start.records is None:
        mixture = _mixture(corpus, {one.name: one.read("train") for one in sets}, config.wording, processor)
    else:
        drawn = scenes(SyntheticConfig(seed=WARM_START_SEED, train=start.records), "train")
        tasks = {name: task for one in reversed(sets) for name, task in one.built(config.wording).items()}
        ordered = [tasks[name] for name in corpus.tasks if name in tasks]
        queries = QueryDataset([scene.record for scene in drawn], ordered, processor)
        mixture = Mixture([(sets[0].name, queries, 1.0)])
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
            write_manifest(partial)
    return measured


class Variant:
    """A variant of a run, which is built, trained and scored; its images are encoded when it is built.

    Args:
        config: the run.
        corpus: its data.
        splits: ``train``, and the splits to score on.
        warm_start: the checkpoint directory from ``train_warm_start``; None starts from the decoder without it.
        store: directory for the features of frozen encoders, unless the config names one.
        progress: the progress display.

    Attributes:
        records: by split and data set; ``train`` has only the sets to train on.
        images: how ``features`` are obtained (``stored``, ``looked up``, ``computed each time``, ``not used``), the
            numbers of ``images`` and of ``readable`` images, the fingerprint of a frozen ``encoder``, the counts of the
            ``cache``, and ``seconds``.
        media: the same of ``videos`` and ``sounds``, by medium.
        encoded: by medium, the number of images in each pass of an encoder that computes features.
        mixture: the training queries.
        truncated: sentences about truncated inputs and answers.
        curves: the training ``loss`` and, with checkpoints, the mean ``dev`` score, each with its step.

    Raises:
        UmieError: an answer would be truncated, or ``compose`` fails.
    """

    def __init__(
        self,
        config: RunConfig,
        corpus: Corpus,
        splits: Sequence[str],
        *,
        warm_start: str | None,
        store: Path,
        progress: Progress,
    ) -> None:
        import torch
        from accelerate import PartialState

        self.config, self.corpus, self.progress = config, corpus, progress
        sets = {split: [one for one in corpus.sets.values() if one.tasks_in(split)] for split in splits}
        sets["train"] = corpus.training_sets(config.trained_on)
        self.records = {split: {one.name: one.read(split, config.images) for one in own} for split, own in sets.items()}
        state = PartialState(cpu=not torch.cuda.is_available())
        progress.phase("building the variant")
        torch.manual_seed(config.seed)
        self.model, self.processor = _build(config, corpus, warm_start)
        self.processor.blind = frozenset(config.blind)
        self.model.to(state.device)
        self.encoded: dict[Medium, list[torch.Tensor]] = {}
        self.curves: dict[str, list[tuple[int, float]]] = {}
        with state.main_process_first():
            folder = Path(config.features.folder or store)
            stored = {medium: self._store_features(medium, folder) for medium in self.processor.preprocessors}
        if stores_texts(config) and self.model.decoder.text_model is not None:
            from umie.encoders import FeatureCache, StoredTexts

            self.model.stored_texts = StoredTexts(self.model.decoder, FeatureCache(folder, on_event=progress.note))
        self.images = stored.pop("image")
        self.media = stored
        progress.phase("encoding texts")
        self.mixture = _mixture(corpus, self.records["train"], config.wording, self.processor)
        self.truncated = check_queries(config, self.processor, len(self.mixture))

    def _store_features(self, medium: Medium, folder: Path) -> dict[str, Any]:
        """Make the processor read the features of a frozen encoder from the store, and add missing features to it."""
        from umie.encoders import CachedEncoder, FeatureCache

        plural = PLURALS[medium]
        distinct: dict[tuple[Path, Sequence[Any]], None] = {}
        for records in (own for by_set in self.records.values() for own in by_set.values()):
            for record in records:
                for number in range(len(record.of(medium))):
                    with contextlib.suppress(UmieError):  # a path that leaves its folder
                        path = record.path(medium, number)
                        if path is not None:
                            limit = self.processor.max_places(medium)
                            distinct[path, record.places_in(medium, number, limit)] = None
        sources = list(distinct)
        report: dict[str, Any] = {plural: len(sources), "seconds": 0.0}
        processor: Any = self.processor
        encoder = self.model.media_encoders.get(medium)
        if encoder is None:
            processor.unused = frozenset(MEDIA)
            return report | {"features": "not used"}
        if encoder.reads_features:
            return report | {"features": "looked up"}
        encoded = self.encoded[medium] = []  # a hook with a reference to this object would keep the model alive
        encoder.register_forward_hook(lambda part, inputs, found: encoded.append(found.mask.any(1).sum()))
        if medium in processor.blind:
            return report | {"features": "not used"}
        if encoder.config.trainable or not self.config.features.enabled:
            return report | {"features": "computed each time"}
        self.progress.phase(f"encoding {plural}", 1)
        started = time.perf_counter()
        cache = FeatureCache(folder, on_event=self.progress.note)
        processor.features[medium] = cached = CachedEncoder(encoder, cache)
        done = itertools.count(1)
        unreadable: list[int] = []  # the policy for missing images applies when an image is used
        cached.fill(
            sources,
            on_item=lambda number: self.progress.advance(next(done) / len(sources)),
            on_error=lambda index, error: unreadable.append(index),
        )
        return report | {
            "features": "stored",
            "encoder": cached.fingerprint,
            "readable": len(sources) - len(unreadable),
            "cache": asdict(cache.stats),
            "seconds": time.perf_counter() - started,
        }

    def encoder_calls(self, medium: Medium) -> int:
        """Return the number of images, videos or sounds that were encoded; 0 if features are not computed."""
        return sum(map(int, self.encoded.get(medium, [])))

    def train(self, output: Path | None, **tracking: Any) -> dict[str, Any]:
        """Train, and return the result of ``train``; ``tracking`` are its options for integrations.

        If the directory ``output`` contains checkpoints of this run, training resumes exactly from the newest.

        Raises:
            UmieError: ``train`` fails, or the checkpoints need dev scores that do not exist.
        """
        from umie.training import is_over, last_checkpoint, state_of, train

        config, mixture, progress, checkpoints = self.config, self.mixture, self.progress, self.config.checkpoints
        has_dev = checkpoints is not None and bool(self.records.get("dev")) and not config.training.fsdp
        check_metric(config, self.corpus)
        steps = config.training.num_steps(len(mixture))
        shares = zip(mixture.names, mixture.probabilities, strict=True)
        listed = ", ".join(f"{name} {share:.0%}" for name, share in shares)
        progress.note(f"{len(mixture)} training queries ({listed}), {steps} steps of {config.training.batch_size}")
        for sentence in self.truncated:
            progress.note(sentence)
        resumed = None if output is None else last_checkpoint(output, progress.note)
        if resumed is not None:
            ended = is_over(state_of(resumed), steps, checkpoints or Checkpoints())
            progress.note(f"finished at {resumed.name}: scored again" if ended else f"resuming from {resumed.name}")

        over = [score_name(key) for key in dev_mean_keys(self.config, self.corpus)] if has_dev else []

        def note_scores(step: int, logs: Mapping[str, float]) -> None:
            for name, key in (("loss", "loss"), ("dev", f"eval_{DEV_MEAN}")):
                if math.isfinite(logs.get(key, math.nan)):
                    self.curves.setdefault(name, []).append((step, round(float(logs[key]), 6)))
            scores = {name: value for name, value in logs.items() if name.startswith("eval_") and "_f1" in name}
            names = {name: name.removeprefix("eval_").removesuffix("_f1") for name in scores}
            if f"eval_{DEV_MEAN}" in names and len(over) < len(scores) - 1:
                names[f"eval_{DEV_MEAN}"] = f"mean of {', '.join(over)}"
            shown = ", ".join(f"{names[name]} {value:.3f}" for name, value in scores.items())
            if scores:
                progress.note(f"step {step} of {steps}: dev F1 {shown}")

        progress.phase("train", steps)
        return train(
            self.model,
            self.processor,
            mixture,
            config.training,
            seed=config.seed,
            on_step=lambda step, total, loss: progress.advance(step, loss),
            on_log=note_scores,
            note=lambda line: None,  # noted above
            output=output,
            checkpoints=checkpoints,
            dev=self._dev_scores if has_dev and output is not None else None,
            **tracking,
        )

    def load_best(self, measured: Mapping[str, Any], output: Path) -> None:
        """Load the checkpoint with the best dev score, if ``measured``, the result of ``train``, has dev scores."""
        from umie.training import load_weights

        if "best_step" in measured:
            best = output / f"checkpoint-{measured['best_step']}"
            try:
                load_weights(self.model, best)
            except UmieError as error:
                raise UmieError(
                    f"the best checkpoint cannot be used: {error}; or remove {best} and all newer checkpoints, and run "
                    "the command again"
                ) from error

    def export(self, folder: Path) -> None:
        """Save the model and its processor; an adapter is merged into the weights and also saved separately."""
        from umie.training import has_adapter, merged, save_adapter

        model = self.model
        with atomic_folder(folder) as partial:
            if has_adapter(model):
                save_adapter(model, partial / "adapter")
                model = merged(model)
            model.save_pretrained(str(partial))
            self.processor.save_pretrained(partial)

    def score(
        self, split: str, *, model: UmieModel | None = None, folder: Path | None = None
    ) -> tuple[dict[str, Any], dict[str, list[float]]]:
        """Score the variant on a split; write predictions to ``folder``, one JSONL file per scored task.

        COUNTS and, if it was trained by this object, CURVES are also written there.

        ``model`` is the model while it is trained; without it, the trained model is scored and the progress shown.
        Return, by key, the metrics, including those of the gate, and the gates of the queries about records with
        media.
        """
        from umie.evaluation import SourcePredictions
        from umie.evaluation.evaluate_task import score_of_gold_calls

        scored = scored_tasks(self.config, self.corpus, split)
        metrics: dict[str, Any] = {}
        gates: dict[str, list[float]] = {}
        counts: dict[str, list[list[int]]] = {}
        sources: dict[tuple[str, str], SourcePredictions] = {}
        for index, one in enumerate(scored):
            wording = self.config.wording if one.wording is None else self.config.in_style(one.wording)
            tasks = self.corpus.sets[one.data_set].built(wording)
            stage = one.data_set, json.dumps([one.wording, one.constrained])

            def on_batch(done: int, total: int, index: int = index) -> None:
                if model is None:
                    self.progress.advance((index + done / total) / len(scored))

            records = self.records[split][one.data_set]
            known = sources.setdefault(stage, SourcePredictions(tasks))
            result = self._evaluate(model or self.model, one, tasks, records, known, on_batch)
            metrics[one.key] = result.scores
            if model is None and (hidden := self._scores_without_media(one, tasks, records)):
                metrics[one.key]["blind"] = hidden
            if model is None and tasks[one.task].style.calls is not None:
                metrics[one.key]["gold_calls"] = score_of_gold_calls(self.processor, records, tasks[one.task])
            if result.is_oracle:
                metrics[one.key]["oracle"] = "gold events"
            if result.gates:
                metrics[one.key] |= gate_health(result.gates)
                gates[one.key] = result.gates
            counts[one.key] = result.sheet.counts.sum(axis=1).astype(int).tolist()
            if folder is not None:
                write_jsonl(folder / f"{one.file_name}.jsonl", result.predictions)
        if folder is not None:
            for name, values in ((COUNTS, counts), (CURVES, self.curves)):
                if values:
                    with atomic_write(folder / name) as file:
                        file.write(json_text(values))
        return metrics, gates

    def _evaluate(
        self,
        model: UmieModel,
        one: ScoredTask,
        tasks: Mapping[str, Task[Any]],
        records: Sequence[Record],
        sources: SourcePredictions,
        on_batch: Callable[[int, int], None] | None = None,
    ) -> TaskResult:
        """Evaluate a scored task as the config says."""
        from umie.evaluation import evaluate

        evaluation = self.config.evaluation
        return evaluate(
            model,
            self.processor,
            records,
            tasks[one.task],
            batch_size=evaluation.batch_size,
            constrained=one.constrained,
            events=one.events,
            sources=sources,
            on_batch=on_batch,
            **evaluation.generation,
        )

    def _scores_without_media(
        self, one: ScoredTask, tasks: Mapping[str, Task[Any]], records: Sequence[Record]
    ) -> dict[str, Any]:
        """Return the scores on the records with each medium of ``evaluation.blind``, when it is hidden."""
        from umie.evaluation import SourcePredictions

        seen = self.processor.blind
        counts = Counter(self.processor.counts)  # of the evaluation as it is
        found = {}
        for medium in self.config.evaluation.blind:
            having = [record for record in records if medium in record.media and record.annotated_for(one.task)]
            if medium in seen | self.processor.unused or not any(tasks[one.task].queries(record) for record in having):
                continue
            self.processor.blind = seen | {medium}
            try:
                found[medium] = self._evaluate(self.model, one, tasks, having, SourcePredictions(tasks)).scores
            finally:
                self.processor.blind = seen
                self.processor.counts.clear()
                self.processor.counts.update(counts)
        return found

    def _dev_scores(self, model: UmieModel) -> dict[str, float]:
        """Return the F1 and the mean gate of each scored task on the dev split, and the mean F1, during training."""
        was_training = model.training
        counts, unreadable = Counter(self.processor.counts), dict(self.processor.unreadable)
        try:
            metrics, _ = self.score("dev", model=model)
        finally:
            model.train(was_training)
            self.processor.reset_counts()  # restore the counts of the training split
            self.processor.counts.update(counts)
            self.processor.unreadable.update(unreadable)
        found = {f"{score_name(key)}_f1": float(values["f1"]) for key, values in metrics.items()}
        found |= {
            f"{score_name(key)}_gate": values["gate_mean"] for key, values in metrics.items() if "gate_mean" in values
        }
        keys = dev_mean_keys(self.config, self.corpus)
        return {DEV_MEAN: sum(float(metrics[key]["f1"]) for key in keys) / len(keys), **found}


def gate_health(gates: Sequence[float]) -> dict[str, float]:
    """Return the mean gate and the share of gates at or below 0, where the visual path gets no gradient."""
    summary = gate_summary(gates)
    return {"gate_mean": summary["mean"], "gate_closed": summary["closed"]}


def _build(config: RunConfig, corpus: Corpus, warm_start: str | None) -> tuple[UmieModel, UmieProcessor]:
    """Return the model and the processor before training."""
    from umie.composition import compose
    from umie.model import UmieModel
    from umie.processor import UmieProcessor

    lengths = {"max_input_tokens": config.max_input_tokens, "max_target_tokens": config.max_target_tokens}
    options: dict[str, Any] = {name: value for name, value in lengths.items() if value is not None}
    options["missing_images"] = config.missing_images
    if config.grounders is not None:
        options["grounders"] = config.grounders
    task_options = config.in_style(corpus.task_options)
    if config.start_from is not None:
        before = UmieProcessor.from_pretrained(config.start_from)
        options = {"max_input_tokens": before.max_input_tokens, "max_target_tokens": before.max_target_tokens} | options
        model: UmieModel = UmieModel.from_pretrained(config.start_from)
        options |= {"candidates": before.candidates, "prompt": before.prompt}
        options |= before.encoders
        _check_markers(before.tokenizer, task_options)
        return model, UmieProcessor(before.tokenizer, task_options=task_options, **options)
    parts = dict(config.parts)
    if warm_start is not None:
        parts["decoder"] = {"name": parts["decoder"]["name"], "source": warm_start}
    tokenizer = tokenizer_of(parts["decoder"], corpus.training_sets(config.trained_on), config.wording)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*num_slot_embeddings")  # plans and reports say it
        return compose(**parts, tasks=task_options, tokenizer=tokenizer, **options)


def _check_markers(tokenizer: Any, task_options: Mapping[str, Mapping[str, Any]]) -> None:
    """Raise UmieError if a model to start from has no tokens for an output style."""
    from umie.composition import with_markers

    if with_markers(tokenizer, task_options) is not tokenizer:
        styles = sorted({str(options.get("style")) for options in task_options.values() if options.get("style")})
        raise UmieError(
            f"start_from: its tokenizer cannot write the style {' or '.join(styles)}: train the first stage with this "
            "style, too, so that the model has the tokens"
        )


def _mixture(corpus: Corpus, records: Records, wording: Wording, processor: UmieProcessor) -> Mixture:
    """Return the training queries, with the label schemas of each data set and the shares of the corpus."""
    from umie.evaluation import QueryDataset
    from umie.training import Mixture

    sources = [
        (name, QueryDataset(own, list(corpus.sets[name].built(wording).values()), processor), corpus.weights[name])
        for name, own in records.items()
    ]
    return Mixture(sources, corpus.sampling.strategy, corpus.sampling.temperature)
