"""``run_training``: train a variant from a config, with checkpoints, the best and the last model, and scores."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout

from umie.errors import UmieError
from umie.experiments.config import RunConfig
from umie.experiments.data_sets import Corpus
from umie.experiments.identity import identity
from umie.experiments.parts import unnamed_regions
from umie.experiments.prepare_data import prepare_corpus
from umie.experiments.progress import Progress
from umie.experiments.scored_tasks import scored_tasks
from umie.experiments.variant import Trained, load_best, records_of, score_variant, train_variant, train_warm_start
from umie.files import atomic_folder, atomic_write, read_json

if TYPE_CHECKING:
    from accelerate import PartialState

    from umie.model import UmieModel
    from umie.processor import UmieProcessor

IDENTITY = "run.json"
WARM_START = "warm_start"
BEST, LAST = "best", "last"
ADAPTER = "adapter"


@dataclass(frozen=True)
class RunResult:
    """A finished run.

    Args:
        folder: the directory of the run, with ``best``, ``last``, checkpoints, predictions and the report.
        config: the config of the run.
        corpus: the data.
        measured: the result of ``train``, and ``seconds``.
        history: the logs of all steps, also from before resumptions: losses, learning rates, dev scores.
        metrics: the scores of the best model, by split and key.
        gates: the gates of the best model, by split and key.
        titles: the names of the keys in tables.
        facts: sentences about data, images and truncation.
    """

    folder: Path
    config: RunConfig
    corpus: Corpus
    measured: Mapping[str, Any]
    history: Sequence[Mapping[str, Any]]
    metrics: Mapping[str, Mapping[str, Any]]
    gates: Mapping[str, Mapping[str, Sequence[float]]]
    titles: Mapping[str, str]
    facts: Sequence[str]


def run_training(config: RunConfig, *, root: Path, output: Path, progress: Progress) -> RunResult:
    """Train, save and score a variant. A stopped run resumes exactly from its last checkpoint.

    With torchrun, every process calls this function; only the first one writes.

    Args:
        config: the config of the run.
        root: the directory that paths under ``data`` are relative to.
        output: the directory of the run.
        progress: the progress display.

    Raises:
        UmieError: the data are invalid, the directory contains another run, or ``train_variant`` fails.
    """
    import torch
    from accelerate import PartialState
    from transformers.utils import logging

    from umie.training import last_checkpoint, state_of

    logging.disable_progress_bar()
    logging.set_verbosity_error()
    started = time.perf_counter()
    # the other processes wait while the first one computes the final scores
    state = PartialState(cpu=not torch.cuda.is_available(), timeout=timedelta(days=1))
    with _locked(output, state.is_main_process):
        with state.main_process_first():
            corpus, used = _data(config, root, output, progress)
            if state.is_main_process:
                _identify(config, corpus, output)
        torch.manual_seed(config.seed)
        warm_start = _warm_start(config, corpus, output, progress, state)
        records = {split: records_of(config, corpus, split) for split in used}
        for sentence in _beginning(config, corpus, used):
            progress.note(sentence)
        trained = train_variant(
            config,
            corpus,
            records,
            warm_start=warm_start,
            store=output / "features",
            progress=progress,
            output=output,
        )
        trained.processor.reset_counts()
        metrics: dict[str, dict[str, Any]] = {}
        gates: dict[str, dict[str, list[float]]] = {}
        if state.is_main_process and not config.training.fsdp:
            progress.phase("saving")
            export(trained.model, trained.processor, output / LAST)
            load_best(trained, output)
            export(trained.model, trained.processor, output / BEST)
            for split in used[1:]:
                progress.phase(f"scoring {split}", 1)
                metrics[split], gates[split] = score_variant(
                    config,
                    corpus,
                    trained.model,
                    trained.processor,
                    scored_tasks(config, corpus, split),
                    records[split],
                    progress=progress,
                    folder=output / "predictions" / split,
                )
        state.wait_for_everyone()
    warning = unnamed_regions([config], corpus.tasks)
    return RunResult(
        folder=output,
        config=config,
        corpus=corpus,
        measured={**trained.measured, "seconds": time.perf_counter() - started},
        history=[] if (newest := last_checkpoint(output)) is None else state_of(newest)["log_history"],
        metrics=metrics,
        gates=gates,
        titles={one.key: one.title for split in used[1:] for one in scored_tasks(config, corpus, split)},
        facts=[*_about_data(corpus, trained), *trained.truncated, *([warning] if warning else [])],
    )


def export(model: UmieModel, processor: UmieProcessor, folder: Path) -> None:
    """Save a model and its processor; an adapter is merged into the weights and also saved separately."""
    from umie.training import has_adapter, merged, save_adapter

    with atomic_folder(folder) as partial:
        if has_adapter(model):
            save_adapter(model, partial / ADAPTER)
            model = merged(model)
        model.save_pretrained(str(partial))
        processor.save_pretrained(partial)


def _data(config: RunConfig, root: Path, output: Path, progress: Progress) -> tuple[Corpus, list[str]]:
    """Return the checked data and the splits to use: train and, if they exist, dev and the evaluation split."""
    sets = config.data.sets.values()
    used = [
        split
        for split in dict.fromkeys(("train", "dev", config.evaluation.split))
        if split == "train" or any(one.format == "synthetic" or one.options.get(split) is not None for one in sets)
    ]
    progress.phase("reading data")
    corpus = prepare_corpus(
        config.data,
        root=root,
        output=output,
        splits=used,
        missing_images=config.missing_images,
        encoders=[config.encoder],
        on_item=progress.phase,
    )
    return corpus, used


def _identify(config: RunConfig, corpus: Corpus, output: Path) -> None:
    """Write the identity of the run, so that no other run continues in its directory.

    Raises:
        UmieError: the directory contains a different run.
    """
    found: dict[str, Any] = json.loads(json.dumps(identity(config, corpus.fingerprint), default=list))
    path = output / IDENTITY
    if path.exists():
        before = read_json(path, "the identity of a run")
        changed = [name for name in found if before.get(name) != found[name]]
        if changed:
            raise UmieError(
                f"{output} contains a run that differs in {', '.join(changed)}: use another --output, or remove it"
            )
        return
    with atomic_write(path) as file:
        json.dump(found, file, indent=1, ensure_ascii=False)


def _warm_start(config: RunConfig, corpus: Corpus, output: Path, progress: Progress, state: PartialState) -> str | None:
    """Train the decoder's warm start, if configured, with all processes, unless it already exists."""
    if config.warm_start is None:
        return None
    exists = (output / WARM_START).exists()
    state.wait_for_everyone()  # the answer must be the same in all processes
    if not exists:
        train_warm_start(config, corpus, output / WARM_START if state.is_main_process else None, progress)
    state.wait_for_everyone()
    return str(output / WARM_START)


@contextmanager
def _locked(output: Path, is_main: bool) -> Iterator[None]:
    if not is_main:
        yield
        return
    output.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(output / ".lock", timeout=0):
            yield
    except Timeout as error:
        raise UmieError(f"{output} is in use by another run: wait for it, or use another --output") from error


def _beginning(config: RunConfig, corpus: Corpus, used: Sequence[str]) -> Iterator[str]:
    warning = unnamed_regions([config], corpus.tasks)
    if warning:
        yield f"warning: {warning}"
    if "dev" not in used:
        yield "no data set has a dev split: there are no scores during training, and the last model is used as the best"
    elif config.training.fsdp:
        yield "sharded by fsdp: there are no scores during training; score a checkpoint with umie evaluate afterwards"


def _about_data(corpus: Corpus, trained: Trained) -> Iterator[str]:
    mixture = trained.mixture
    for (name, one), share in zip(
        ((name, corpus.sets[name]) for name in mixture.names), mixture.probabilities, strict=True
    ):
        sizes = ", ".join(f"{split} {count}" for split, count in one.num_records.items())
        also = {split: count for split, count in one.num_seen.items() if count}
        seen = "".join(f"; {count} texts of {split} also occur in a training split" for split, count in also.items())
        yield f"{name} ({one.format}): records {sizes}; {share:.0%} of the queries drawn{seen}"
        for split, lost in one.unreadable.items():
            if lost:
                yield f"{name}: unreadable images of {split}: {len(lost)}, e.g. {next(iter(lost.values()))}"
    yield f"images: {trained.images['images']}, their features are {trained.images['features']}"
