"""run_training: from a config to a trained variant: checkpoints, the best and the last model, and its scores."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from umie.errors import UmieError
from umie.experiments.data_sets import Corpus
from umie.experiments.export import BEST, LAST, export
from umie.experiments.parts import unnamed_regions
from umie.experiments.prepare_run import (
    Display,
    check_lengths,
    data_of,
    encode_images,
    identify,
    records_of,
    text_start,
    variant_of,
)
from umie.experiments.run_config import RunConfig
from umie.experiments.run_scores import Scorer
from umie.experiments.variant import mixture_of


@dataclass(frozen=True)
class RunResult:
    """A run that came to its end.

    Args:
        folder: of the run: ``best``, ``last``, checkpoints, predictions, report.
        config: of the run.
        corpus: the data.
        measured: what ``train`` returned, and ``seconds``.
        history: what was logged at each step, over all resumptions: losses, rates, dev scores.
        metrics: the scores of the best model, by split and key.
        gates: of the best model, by split and key.
        titles: what tables call each key.
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


def run_training(config: RunConfig, *, root: Path, output: Path, display: Display) -> RunResult:
    """Train, save and score a variant; a run that was ended goes on from its last checkpoint, exactly.

    Under torchrun every process calls it; the first one writes.

    Args:
        config: the run.
        root: folder that relative paths of ``data`` start from.
        output: folder of the run.
        display: shows its progress.

    Raises:
        UmieError: bad data, another run in the folder, a target that would be cut, and what ``train`` raises.
    """
    import torch
    from accelerate import PartialState
    from transformers.utils import logging

    from umie.training import last_checkpoint, load_weights, state_of, train

    logging.disable_progress_bar()
    logging.set_verbosity_error()
    started = time.perf_counter()
    # what the first process does alone, above all the last scores, takes its time
    state = PartialState(cpu=not torch.cuda.is_available(), timeout=timedelta(days=1))
    with _locked(output, state.is_main_process):
        with state.main_process_first():
            corpus, used = data_of(config, root, output, display)
            cell = config.cell(corpus.fingerprint)
            if state.is_main_process:
                identify(config, cell, corpus, output)
        torch.manual_seed(config.seed)
        text_start(config, cell, corpus, output, display, state)
        torch.manual_seed(config.seed)
        model, processor = variant_of(config, cell, corpus, output, display)
        records = {split: records_of(cell, corpus, split) for split in used}
        model.to(state.device)
        with state.main_process_first():
            images = encode_images(config, model, processor, records, output, display)
        display.phase("encoding texts")
        mixture = mixture_of(corpus, records["train"], cell.instruction, processor)
        cut = check_lengths(config, processor, mixture)
        processor.reset_counts()
        scorer = Scorer(config, cell, corpus, processor, records, display)
        has_dev = "dev" in used and not config.training.fsdp
        if has_dev:
            scorer.check_metric()
        elif config.checkpoints.patience is not None:
            raise UmieError("checkpoints: patience needs dev scores, and no data set has a dev split: leave it out")
        steps = config.training.num_steps(len(mixture))
        for sentence in _beginning(config, corpus, mixture, steps, used, last_checkpoint(output), cut):
            display.note(sentence)
        display.phase("train", steps)
        measured = train(
            model,
            processor,
            mixture,
            config.training,
            seed=config.seed,
            on_step=lambda step, total, loss: display.advance(step, loss),
            on_log=lambda step, logs: _note_scores(display, step, steps, logs),
            output=output,
            checkpoints=config.checkpoints,
            dev=scorer.dev if has_dev else None,
        )
        metrics: dict[str, dict[str, Any]] = {}
        gates: dict[str, dict[str, list[float]]] = {}
        if state.is_main_process and not config.training.fsdp:
            display.phase("saving")
            export(model, processor, output / LAST)
            if "best_step" in measured:
                load_weights(model, output / f"checkpoint-{measured['best_step']}")
            export(model, processor, output / BEST)
            for split in used[1:]:
                display.phase(f"scoring {split}", 1)
                metrics[split], gates[split] = scorer.score(model, split, output / "predictions" / split)
        state.wait_for_everyone()
    return RunResult(
        folder=output,
        config=config,
        corpus=corpus,
        measured={**measured, "seconds": time.perf_counter() - started},
        history=[] if (newest := last_checkpoint(output)) is None else state_of(newest)["log_history"],
        metrics=metrics,
        gates=gates,
        titles={one.key: one.title for split in used[1:] for one in scorer.asked(split)},
        facts=[
            *_about_data(corpus, mixture, images),
            *cut,
            *filter(None, [unnamed_regions(config.grid, corpus.tasks)]),
        ],
    )


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
        raise UmieError(f"{output} is in use by another run: wait for it, or give another --output") from error


def _beginning(
    config: RunConfig,
    corpus: Corpus,
    mixture: Any,
    steps: int,
    used: Sequence[str],
    resumed: Path | None,
    cut: Sequence[str],
) -> Iterator[str]:
    shares = ", ".join(f"{name} {share:.0%}" for name, share in zip(mixture.names, mixture.probabilities, strict=True))
    yield f"{len(mixture)} training queries ({shares}), {steps} steps of {config.training.batch_size}"
    yield from cut
    warning = unnamed_regions(config.grid, corpus.tasks)
    if warning:
        yield f"warning: {warning}"
    if "dev" not in used:
        yield "no data set has a dev split: nothing is scored while training, and the best model is the last"
    elif config.training.fsdp:
        yield "sharded by fsdp: nothing is scored while training; score a checkpoint by umie evaluate afterwards"
    if resumed is not None:
        from umie.training import is_over, state_of

        ended = is_over(state_of(resumed), steps, config.checkpoints)
        yield f"finished at {resumed.name}: scored again" if ended else f"going on from {resumed.name}"


def _note_scores(display: Display, step: int, steps: int, logs: Mapping[str, float]) -> None:
    scores = {name.removeprefix("eval_"): value for name, value in logs.items() if name.startswith("eval_")}
    if scores:
        shown = " ".join(f"{name.removesuffix('_f1')} {value:.3f}" for name, value in scores.items() if "_f1" in name)
        display.note(f"step {step} of {steps}: dev F1 {shown}")


def _about_data(corpus: Corpus, mixture: Any, images: Mapping[str, Any]) -> Iterator[str]:
    for (name, one), share in zip(
        ((name, corpus.sets[name]) for name in mixture.names), mixture.probabilities, strict=True
    ):
        sizes = ", ".join(f"{split} {count}" for split, count in one.num_records.items())
        seen = "".join(
            f"; {count} texts of {split} stand in a training split" for split, count in one.num_seen.items() if count
        )
        yield f"{name} ({one.format}): records {sizes}; {share:.0%} of the queries drawn{seen}"
        for split, lost in one.unreadable.items():
            if lost:
                yield f"{name}: images of {split} that cannot be read: {len(lost)}, e.g. {next(iter(lost.values()))}"
    yield f"images: {images['images']}, their features are {images['features']}"
