"""What a grid file may say: its keys as dataclasses that check their values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from umie.errors import UnknownNameError, check_choice, check_flag, check_keys, check_text, check_whole
from umie.evaluation import SUBJECTS
from umie.experiments.data_config import as_mapping
from umie.experiments.slots import Instruction, TrainOn


@dataclass(frozen=True, kw_only=True)
class WarmStart:
    """A text-only training of the decoder, run once and shared by every cell.

    Args:
        training: options of TrainingConfig.
        records: with the embedded data set: how many records to draw for it, from a seed of its own; with any
            other: None, it then takes the texts of the training split.
        seed: of its weights and batches.
    """

    training: Mapping[str, Any] = field(default_factory=dict)
    records: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if self.records is not None:
            check_whole("records", self.records, 3)
        check_whole("seed", self.seed, 0)


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """How a trained cell is scored.

    Args:
        split: ``test``, or ``dev`` while options are chosen.
        batch_size: queries in one call of generate.
        constrained: decode under each task's grammar.
        events: which events MEAE is asked about: ``predicted`` by MED, as in the paper, or ``gold``, an oracle.
            Without MED among the tasks it is ``gold``.
        generation: options for transformers' generate, e.g. ``{"num_beams": 4}``.
        instructions: the wordings that a trained model is asked with, each scored on its own; empty for the one that
            it was trained with.
    """

    split: str = "test"
    batch_size: int = 64
    constrained: bool = False
    events: str = "predicted"
    generation: Mapping[str, Any] = field(default_factory=dict)
    instructions: Sequence[Instruction] = ()

    def __post_init__(self) -> None:
        if self.split not in ("dev", "test"):
            raise UnknownNameError("evaluation split", self.split, ("dev", "test"))
        check_whole("batch_size", self.batch_size, 1)
        check_flag("constrained", self.constrained)
        check_choice("events", self.events, SUBJECTS)
        from transformers import GenerationConfig

        check_keys("option of generate:", as_mapping("generation", self.generation), GenerationConfig().to_dict())


@dataclass(frozen=True, kw_only=True)
class FeatureStore:
    """Where the features of frozen encoders are kept, so that cells share them.

    Args:
        folder: relative to the grid file; grids and ``umie data features`` share a place that they both name. None
            takes ``features`` in the grid's output folder.
        max_bytes: beyond it, what was used longest ago is removed; None keeps all.
        enabled: if false, every cell encodes its images in every epoch.
    """

    folder: str | None = None
    max_bytes: int | None = None
    enabled: bool = True

    def __post_init__(self) -> None:
        check_text("folder", self.folder)
        if self.max_bytes is not None:
            check_whole("max_bytes", self.max_bytes, 1)
        check_flag("enabled", self.enabled)


@dataclass(frozen=True, kw_only=True)
class GridConfig:
    """A grid file.

    Args:
        name: of the output folder and of the table.
        data: ``format`` and its options, or ``sets`` of such by name; see
            ``umie.experiments.data_config``. In the file also the name of a YAML file that holds them.
        tasks: names of the tasks, or a mapping from names to their options.
        train_on: the data sets that are trained on, or a list of choices to vary; see ``umie.experiments.slots``.
        instruction: the wording that tasks are trained and asked with, or a list to vary; see
            ``umie.experiments.slots``.
        encoder: a part, or a list of parts to vary: a name, or a mapping with ``name`` and options, and with
            ``label`` if the table shall call it otherwise, and ``training`` with options that go before the grid's.
        fusion: as above.
        decoder: as above; or a preset, checkpoint folder or hub name for ``t5``.
        visual_embedding: options, or a list of options to vary.
        seeds: of weights and batches; every variant is run with each.
        training: options of TrainingConfig, or a list of options to vary.
        warm_start: see WarmStart; None starts every cell from the decoder as it comes.
        evaluation: see Evaluation.
        missing_images: what an image that cannot be read does: ``error``, ``text_only`` or ``skip``.
        features: see FeatureStore.
        plugins: Python files that register parts of your own, relative to the grid file.
        workers: cells that run at a time; None takes half a worker for each processor, at least one.
        mean_over: tasks that the table averages, or with several data sets one of them on one (``twitter17 mner``);
            empty for all of them.
        reference: published F1 to show beside the measured; see ``umie.experiments.reference``.
        notes: sentences that the table repeats.
    """

    name: str
    data: Mapping[str, Any]
    tasks: Mapping[str, Mapping[str, Any]]
    train_on: Sequence[TrainOn] = (TrainOn("all sets", ()),)
    instruction: Sequence[Instruction] = (Instruction(),)
    encoder: Sequence[Any] = ("tiny",)
    fusion: Sequence[Any] = ("gated",)
    decoder: Sequence[Any] = ("tiny",)
    visual_embedding: Sequence[Mapping[str, Any]] = ({},)
    seeds: Sequence[int] = (0,)
    training: Sequence[Mapping[str, Any]] = ({},)
    warm_start: WarmStart | None = None
    evaluation: Evaluation = field(default_factory=Evaluation)
    missing_images: str = "error"
    features: FeatureStore = field(default_factory=FeatureStore)
    plugins: Sequence[str] = ()
    workers: int | None = None
    mean_over: Sequence[str] = ()
    reference: Sequence[Any] = ()
    notes: Sequence[str] = ()
