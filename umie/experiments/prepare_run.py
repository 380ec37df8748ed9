"""What a run stands on before its first step: checked data, the variant, encoded images, the mixture of queries."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from umie.errors import UmieError
from umie.experiments.data_config import read_corpus_config
from umie.experiments.data_sets import Corpus
from umie.experiments.features import store_features
from umie.experiments.plan import Cell
from umie.experiments.prepare_data import prepare_corpus
from umie.experiments.run_config import RunConfig
from umie.experiments.scored_tasks import Asked, asked
from umie.experiments.variant import tokenizer_of, train_text_start
from umie.files import atomic_write
from umie.records import Record

if TYPE_CHECKING:
    from accelerate import PartialState

    from umie.model import UmieModel
    from umie.processor import UmieProcessor
    from umie.training import Mixture

IDENTITY = "run.json"
TEXT_START = "text_start"


class Display(Protocol):
    """What shows the progress of a run."""

    def phase(self, name: str, total: float | None = None) -> None:
        """A phase begins, with its number of steps where that is known."""

    def advance(self, done: float, loss: float | None = None) -> None:
        """So much of the phase is done."""

    def note(self, what: str) -> None:
        """Say a sentence that stays."""


def data_of(config: RunConfig, root: Path, output: Path, display: Display) -> tuple[Corpus, list[str]]:
    """Return the checked data, and the splits that are used: train, and dev and the one to evaluate where they are."""
    grid = config.grid
    sets = read_corpus_config(grid.data, grid.tasks).sets.values()
    used = [
        split
        for split in dict.fromkeys(("train", "dev", grid.evaluation.split))
        if split == "train" or any(one.format == "synthetic" or one.options.get(split) is not None for one in sets)
    ]
    display.phase("reading data")
    corpus = prepare_corpus(
        grid.data,
        grid.tasks,
        root=root,
        output=output,
        splits=used,
        missing_images=grid.missing_images,
        encoders=grid.encoder,
        on_item=display.phase,
    )
    return corpus, used


def identify(config: RunConfig, cell: Cell, corpus: Corpus, output: Path) -> None:
    """Write what the run is, so that its folder is never gone on with by another.

    Raises:
        UmieError: the folder holds a run that differs.
    """
    identity = {
        **{name: getattr(cell, name) for name in ("parts", "training", "train_on", "instruction", "seed")},
        "data": corpus.fingerprint,
        "tasks": [[name, one.tasks] for name, one in corpus.sets.items()],
        "warm_start": None if config.grid.warm_start is None else dataclasses.asdict(config.grid.warm_start),
        "start_from": config.start_from,
        "lengths": [config.max_input_tokens, config.max_target_tokens],
        "metric": config.checkpoints.metric,
        "evaluation": dataclasses.asdict(config.grid.evaluation),
        "missing_images": config.grid.missing_images,
    }
    plain: dict[str, Any] = json.loads(json.dumps(identity, default=list))
    path = output / IDENTITY
    if path.exists():
        before = json.loads(path.read_text(encoding="utf-8"))
        changed = [name for name in plain if before.get(name) != plain[name]]
        if changed:
            raise UmieError(
                f"{output} holds a run that differs in {', '.join(changed)}: give another --output, or remove it"
            )
        return
    with atomic_write(path) as file:
        json.dump(plain, file, indent=1, ensure_ascii=False)


def text_start(
    config: RunConfig, cell: Cell, corpus: Corpus, output: Path, display: Display, state: PartialState
) -> None:
    """Train the text-only start that the config asks for, by all processes together, unless it is there."""
    start = config.grid.warm_start
    if start is None:
        return
    is_there = (output / TEXT_START).exists()
    state.wait_for_everyone()  # the answer must be the same in all processes
    if not is_there:
        display.phase("text-only start", 1)
        train_text_start(
            cell.parts["decoder"],
            corpus,
            corpus.trained(cell.train_on),
            cell.instruction,
            training=start.training,
            records=start.records,
            seed=start.seed,
            folder=output / TEXT_START if state.is_main_process else None,
            on_step=lambda step, total, loss: display.advance(step / total, loss),
        )
    state.wait_for_everyone()


def variant_of(
    config: RunConfig, cell: Cell, corpus: Corpus, output: Path, display: Display
) -> tuple[UmieModel, UmieProcessor]:
    """Return the model and the processor that the training begins with."""
    from umie.composition import compose
    from umie.model import UmieModel
    from umie.processor import UmieProcessor

    display.phase("loading the variant")
    given = {"max_input_tokens": config.max_input_tokens, "max_target_tokens": config.max_target_tokens}
    options: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    options["missing_images"] = config.grid.missing_images
    if config.start_from is not None:
        before = UmieProcessor.from_pretrained(config.start_from)
        options = {"max_input_tokens": before.max_input_tokens, "max_target_tokens": before.max_target_tokens} | options
        model: UmieModel = UmieModel.from_pretrained(config.start_from)
        return model, UmieProcessor(before.tokenizer, before.encoder, corpus.task_options, **options)
    parts = {slot: cell.parts[slot] for slot in ("encoder", "fusion", "decoder", "visual_embedding")}
    sets = corpus.trained(cell.train_on)
    if config.grid.warm_start is not None:
        parts["decoder"] = {"name": parts["decoder"]["name"], "source": str(output / TEXT_START)}
    tokenizer = tokenizer_of(parts["decoder"], sets, cell.instruction)
    return compose(**parts, tasks=corpus.task_options, tokenizer=tokenizer, **options)


def records_of(cell: Cell, corpus: Corpus, split: str) -> dict[str, list[Record]]:
    """Return the records of a split by data set: of those that are trained on, or of all that are scored."""
    sets = (
        corpus.trained(cell.train_on) if split == "train" else [one for one in corpus.sets.values() if one.asked(split)]
    )
    return {one.name: one.read(split) for one in sets}


def asked_on(config: RunConfig, corpus: Corpus, split: str) -> list[Asked]:
    """Return all that a split is asked."""
    evaluation = dataclasses.replace(config.grid.evaluation, split=split)
    return asked(dataclasses.replace(config.grid, evaluation=evaluation), corpus)


def encode_images(
    config: RunConfig,
    model: UmieModel,
    processor: UmieProcessor,
    records: Mapping[str, Mapping[str, Sequence[Record]]],
    output: Path,
    display: Display,
) -> dict[str, Any]:
    """Let a frozen encoder make each image's features once, in the run's store or the one that the config names."""
    store = {
        **dataclasses.asdict(config.grid.features),
        "folder": config.grid.features.folder or str(output / "features"),
    }
    everything = [record for sets in records.values() for own in sets.values() for record in own]
    display.phase("encoding images", 1)
    return store_features(
        model, processor, everything, store, lambda done, total: display.advance(done / total), display.note
    )


def check_lengths(config: RunConfig, processor: UmieProcessor, mixture: Mixture) -> list[str]:
    """Return sentences about what was cut when the training queries were encoded.

    Raises:
        UmieError: a target was cut, and the config does not allow it.
    """
    counts = processor.counts
    found = []
    if counts["truncated_inputs"]:
        found.append(
            f"{counts['truncated_inputs']} of {len(mixture)} training inputs are cut: they have more than "
            f"{processor.max_input_tokens} tokens (max_input_tokens) and lose the end of their text"
        )
    if counts["truncated_targets"]:
        longest = (
            f"{counts['truncated_targets']} of {len(mixture)} training targets have more than "
            f"{processor.max_target_tokens} tokens"
        )
        if not config.allow_truncated_targets:
            raise UmieError(
                f"{longest}, and what stands behind the cut cannot be learned: raise max_target_tokens, or set "
                "allow_truncated_targets: true"
            )
        found.append(f"{longest} and are cut (allow_truncated_targets)")
    return found
