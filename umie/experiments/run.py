"""``run_training``: train a variant from a config, with checkpoints, the best and the last model, and scores."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from umie.checkpoints import is_intact
from umie.errors import UmieError
from umie.experiments.config import RunConfig
from umie.experiments.data_sets import Corpus
from umie.experiments.identity import identity, locked
from umie.experiments.parts import ignored_media, unnamed_places
from umie.experiments.prepare_data import prepare_corpus
from umie.experiments.scored_tasks import averaged, check_metric, scored_tasks
from umie.experiments.variant import Progress, Variant, train_warm_start
from umie.files import atomic_write, json_text, read_json
from umie.records.places import PLURALS

BEST, LAST = "best", "last"


@dataclass(frozen=True)
class RunResult:
    """A finished run."""

    folder: Path  # with best, last, checkpoints, predictions and the report
    config: RunConfig
    corpus: Corpus
    measured: Mapping[str, Any]  # the result of train, and seconds
    history: Sequence[Mapping[str, Any]]  # losses, learning rates, dev scores of all steps, also before resumptions
    metrics: Mapping[str, Mapping[str, Any]]  # of the best model, by split and key
    gates: Mapping[str, Mapping[str, Sequence[float]]]  # of the best model, by split and key
    titles: Mapping[str, str]  # names in tables, by key
    facts: Sequence[str]  # sentences about data, images and truncation


def run_training(config: RunConfig, *, root: Path, output: Path, progress: Progress) -> RunResult:
    """Train, save and score a variant. A stopped run resumes exactly from its last checkpoint.

    With torchrun, every process calls this function; only the first one writes. Paths under ``data`` are relative to
    ``root``.

    Raises:
        UmieError: the data are invalid, the directory contains another run, or training fails.
    """
    import torch
    from accelerate import PartialState
    from transformers.utils import logging

    from umie.training import find_checkpoint, state_of

    logging.disable_progress_bar()
    logging.set_verbosity_error()
    started = time.perf_counter()
    # the other processes wait while the first one computes the final scores
    state = PartialState(cpu=not torch.cuda.is_available(), timeout=timedelta(days=1))
    with locked(output) if state.is_main_process else nullcontext():
        with state.main_process_first():
            corpus, used = prepare_data(config, root, output, progress)
            if state.is_main_process:
                _identify(config, corpus, output)
        torch.manual_seed(config.seed)
        warm_start = None
        if config.warm_start is not None:  # trained with all processes, unless it already exists
            warm_start = output / "warm_start"
            exists = is_intact(warm_start)
            state.wait_for_everyone()  # the answer must be the same in all processes
            if not exists:
                train_warm_start(config, corpus, warm_start if state.is_main_process else None, progress)
            state.wait_for_everyone()
        warning = unnamed_places([config], corpus.tasks)
        if warning:
            progress.note(f"warning: {warning}")
        if "dev" not in used:
            progress.note(
                "no data set has a dev split: there are no scores during training, and the last model is used as the "
                "best"
            )
        elif config.training.fsdp:
            progress.note(
                "sharded by fsdp: there are no scores during training; score a checkpoint with umie evaluate afterwards"
            )
        start = None if warm_start is None else str(warm_start)
        variant = Variant(config, corpus, used, warm_start=start, store=output / "features", progress=progress)
        measured = variant.train(output)
        variant.processor.reset_counts()
        metrics: dict[str, dict[str, Any]] = {}
        gates: dict[str, dict[str, list[float]]] = {}
        if state.is_main_process and not config.training.fsdp:
            progress.phase("saving")
            variant.export(output / LAST)
            variant.load_best(measured, output)
            variant.export(output / BEST)
            for split in used[1:]:
                progress.phase(f"scoring {split}", 1)
                metrics[split], gates[split] = variant.score(split, folder=output / "predictions" / split)
        state.wait_for_everyone()
    newest, _ = find_checkpoint(output)
    return RunResult(
        folder=output,
        config=config,
        corpus=corpus,
        measured={**measured, "seconds": time.perf_counter() - started},
        history=[] if newest is None else state_of(newest)["log_history"],
        metrics=metrics,
        gates=gates,
        titles={one.key: one.title for split in used[1:] for one in scored_tasks(config, corpus, split)},
        facts=[
            *_about_data(variant),
            *ignored_media({config.name: config}, corpus),
            *variant.truncated,
            *([warning] if warning else []),
        ],
    )


def prepare_data(config: RunConfig, root: Path, output: Path, progress: Progress) -> tuple[Corpus, list[str]]:
    """Return the checked data and the splits to use: train and, if they exist, dev and the evaluation split.

    Raises:
        UmieError: as for ``prepare_corpus``; or the config names scores that these data do not have.
    """
    sets = config.data.sets.values()
    used = [
        split
        for split in dict.fromkeys(("train", "dev", config.evaluation.split))
        if split == "train" or any(one.is_drawn or one.options.get(split) is not None for one in sets)
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
    for line in ignored_media({config.name: config}, corpus):
        progress.note(f"warning: {line}")
    from umie.training import slow_bfloat16

    if warning := slow_bfloat16([config.training]):
        progress.note(f"warning: {warning}")
    check_metric(config, corpus)
    averaged(config, scored_tasks(config, corpus, used[-1]))
    return corpus, used


def _identify(config: RunConfig, corpus: Corpus, output: Path) -> None:
    """Write the identity of the run, so that no other run continues in its directory; raise UmieError if one did."""
    found: dict[str, Any] = json.loads(json.dumps(identity(config, corpus.fingerprint), default=list))
    path = output / "run.json"
    if path.exists():
        before = read_json(path, "the identity of a run")
        if not isinstance(before, dict):
            raise UmieError(f"{path}: is damaged: use another --output, or remove {output}")
        changed = [name for name in found if before.get(name) != found[name]]
        if changed:
            raise UmieError(
                f"{output} contains a run that differs in {', '.join(changed)}: use another --output, or remove it"
            )
    else:
        checkpoints = sorted(one.name for one in output.glob("checkpoint-*"))
        if checkpoints:
            raise UmieError(
                f"{output} contains {checkpoints[0]}, but no run.json that says of which run: use another --output, or "
                "remove it"
            )
        with atomic_write(path) as file:
            file.write(json_text(found, indent=1))


def _about_data(variant: Variant) -> Iterator[str]:
    for name, share in zip(variant.mixture.names, variant.mixture.probabilities, strict=True):
        one = variant.corpus.sets[name]
        sizes = ", ".join(f"{split} {count}" for split, count in one.num_records.items())
        also = {split: count for split, count in one.num_seen.items() if count}
        seen = "".join(f"; {count} texts of {split} also occur in a training split" for split, count in also.items())
        yield f"{name} ({one.format}): records {sizes}; {share:.0%} of the queries drawn{seen}"
        for split, lost in one.unreadable.items():
            if lost:
                yield f"{name}: unreadable images of {split}: {len(lost)}, e.g. {next(iter(lost.values()))}"
    for medium, facts in {"image": variant.images, **variant.media}.items():
        yield f"{PLURALS[medium]}: {facts[PLURALS[medium]]}, their features are {facts['features']}"
    counts = dict(getattr(variant.processor.preprocessor, "counts", {}))  # of precomputed features
    if number := counts.pop("boxes", 0):
        reasons = ", ".join(f"{reason} {count}" for reason, count in sorted(counts.items())) or "none"
        yield f"boxes in the feature files: {number}, left out {sum(counts.values()) / number:.1%} ({reasons})"
