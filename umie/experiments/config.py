"""The config of a run: one variant, its data, its training and its evaluation. A grid consists of many runs."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, ValidationInfo, field_validator, model_validator

from umie import registries
from umie.configs import Config, Flag, Natural, Options, Positive, as_list, one_of
from umie.errors import UmieError, check_keys, shown
from umie.experiments.choices import Wording, instruction_label, read_instruction, read_train_on
from umie.experiments.data_config import DataConfig, read_data_config, read_tasks
from umie.records import MEDIA
from umie.training.config import Checkpoints, TrainingConfig
from umie.types import IMAGE_POLICIES

CALLS = "reamo"  # the style of answers that grounders carry out
IMAGES = ("own", "shuffled")  # shuffled: each record has another's image, to see what the image itself contributes
PARTS = {
    "encoder": registries.encoders,
    "video_encoder": registries.encoders,
    "audio_encoder": registries.encoders,
    "fusion": registries.fusions,
    "decoder": registries.decoders,
}


class WarmStart(Config):
    """Text-only training of the decoder, done once and shared by all runs for which it is the same.

    Args:
        training: see TrainingConfig.
        records: number of records to draw for it with a separate seed, for the embedded data set only; None uses the
            texts of the training split.
        seed: seed of its weights and batches.
    """

    training: TrainingConfig = Field(default_factory=TrainingConfig)
    records: Annotated[int, Field(ge=3, strict=True)] | None = None
    seed: Natural = 0


class Evaluation(Config):
    """How to score a trained variant.

    Args:
        split: ``test``, or ``dev`` while choosing options.
        batch_size: queries per call of generate.
        constrained: decode under each task's grammar; ``both`` scores free answers, too.
        events: the events that staged tasks such as MEAE are asked about: those that their source (MED) ``predicted``,
            as in the paper, or ``gold``, an oracle. If the source is not among the tasks, ``gold`` is used.
        generation: options for ``generate`` of transformers, e.g. ``{"num_beams": 4}``.
        instructions: the wordings to evaluate with, each scored separately; if empty, the wording of training.
        blind: media that are hidden in further evaluations, one at a time: how much the trained variant needs each.
    """

    split: one_of("evaluation split", ("dev", "test")) = "test"  # type: ignore[valid-type] # an annotation
    batch_size: Positive = 64
    constrained: Flag | Literal["both"] = False
    events: one_of("choice of events", ("predicted", "gold")) = "predicted"  # type: ignore[valid-type] # an annotation
    generation: Options = Field(default_factory=dict)
    instructions: Annotated[tuple[Any, ...], BeforeValidator(as_list)] = ()
    blind: tuple[one_of("medium", MEDIA), ...] = ()  # type: ignore[valid-type] # an annotation

    @field_validator("instructions")
    @classmethod
    def _distinct(cls, value: tuple[Any, ...]) -> tuple[Any, ...]:
        labels = [instruction_label(one) for one in value]
        for label in labels:
            if labels.count(label) > 1:
                raise UmieError(f"two instructions are called {label!r}: give them different labels")
        return value


class FeatureStore(Config):
    """Where to keep the features of frozen encoders, so that runs share them.

    Args:
        folder: a directory relative to the config file, which several grids and ``umie data features`` can share; None
            uses ``features`` in the output directory.
        enabled: if false, every run encodes its images in every epoch.
    """

    folder: str | None = None
    enabled: Flag = True


def _part(kind: str) -> Any:
    """Return a validator that turns a part into a mapping with ``name``; options are checked later, by the part."""

    def read(value: Any) -> dict[str, Any] | None:
        if value is None and kind in ("video_encoder", "audio_encoder"):
            return None
        if isinstance(value, str):
            is_source = kind == "decoder" and value not in PARTS[kind]
            value = {"name": "t5", "source": value} if is_source else {"name": value}
        if not isinstance(value, dict):
            raise UmieError(f"{shown(value)} is not a part: use a name, or a mapping with name and options")
        name = value.get("name", "t5" if kind == "decoder" else "")
        check_keys(kind, [name], PARTS[kind].names())
        return {"name": name, **value}

    return BeforeValidator(read)


def _texts(value: object) -> Any:
    # a number, such as the note 2024, is text; a mapping is an error
    return [str(item) if isinstance(item, int | float) else item for item in as_list(value)]


Texts = Annotated[tuple[str, ...], BeforeValidator(_texts)]


def _read_grounders(value: Any) -> dict[str, dict[str, Any]] | None:
    """Return the grounder of each medium as a mapping with ``name``; options are checked later, by the grounder."""
    if value is None or value == {}:
        return None
    if not isinstance(value, dict):
        raise UmieError(f"grounders is {shown(value)}: use a grounder for each medium, such as {{image: grounding}}")
    found = {}
    for medium, part in value.items():
        check_keys("medium in grounders:", [medium], MEDIA)
        part = {"name": part} if isinstance(part, str) else part
        if not isinstance(part, dict) or "name" not in part:
            raise UmieError(f"grounders: {medium} is {shown(part)}: use a name, or a mapping with name and options")
        check_keys("grounder", [part["name"]], registries.grounders.names())
        grounder: Any = registries.grounders.get(part["name"])
        if grounder.medium != medium:
            raise UmieError(f"grounders: {part['name']} looks into {grounder.medium}: set it as {grounder.medium}")
        if not grounder.finds():
            raise UmieError(
                f"grounders: {part['name']} sharpens places and finds none: use umie data ground on predictions"
            )
        found[medium] = dict(part)
    return found


class RunConfig(Config):
    """The config of one run; ``docs/grids.md`` and ``docs/training.md`` describe its keys.

    In a file, ``data`` can also be the path of a YAML file, and ``plugins``, ``features.folder`` and ``start_from`` are
    relative to the file.
    """

    name: str
    tasks: Annotated[dict[str, dict[str, Any]], BeforeValidator(read_tasks)]
    data: DataConfig
    train_on: Any = None
    instruction: Any = None
    encoder: Annotated[dict[str, Any], _part("encoder")] = Field(default="tiny", validate_default=True)
    video_encoder: Annotated[dict[str, Any] | None, _part("video_encoder")] = None
    audio_encoder: Annotated[dict[str, Any] | None, _part("audio_encoder")] = None
    visual_embedding: Options = Field(default_factory=dict)
    fusion: Annotated[dict[str, Any], _part("fusion")] = Field(default="gated", validate_default=True)
    decoder: Annotated[dict[str, Any], _part("decoder")] = Field(default="tiny", validate_default=True)
    grounders: Annotated[dict[str, dict[str, Any]] | None, BeforeValidator(_read_grounders)] = None
    training: TrainingConfig = Field(default_factory=TrainingConfig)
    checkpoints: Checkpoints | None = None
    warm_start: WarmStart | None = None
    evaluation: Evaluation = Field(default_factory=Evaluation)
    images: one_of("choice of images", IMAGES) = "own"  # type: ignore[valid-type] # an annotation
    blind: tuple[one_of("medium", MEDIA), ...] = ()  # type: ignore[valid-type] # an annotation
    missing_images: one_of("policy for missing images", IMAGE_POLICIES) = "error"  # type: ignore[valid-type] # an annotation
    max_input_tokens: Annotated[int, Field(ge=2, strict=True)] | None = None
    max_target_tokens: Annotated[int, Field(ge=2, strict=True)] | None = None
    allow_truncated_targets: Flag = False
    allow_unwritable_targets: Flag = False
    start_from: str | None = None
    preset: str | None = None
    seed: Annotated[int, Field(ge=0, lt=2**32, strict=True)] = 0
    mean_over: Texts = ()
    features: FeatureStore = Field(default_factory=FeatureStore)
    plugins: Texts = ()
    notes: Texts = ()

    @field_validator("data", mode="before")
    @classmethod
    def _read_data(cls, value: Any, info: ValidationInfo) -> Any:
        return value if isinstance(value, DataConfig) else read_data_config(value, info.data.get("tasks", {}))

    @field_validator("name")
    @classmethod
    def _plain_name(cls, value: str) -> str:
        if value in ("", ".", "..") or set(value) & set("/\\\0"):
            raise UmieError(
                f"{value!r} cannot be used as a directory name: use a name without slashes, not '.' or '..'"
            )
        return value

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        read_train_on(self.train_on, list(self.data.sets))
        read_instruction(self.instruction, self.data.tasks)
        for one in self.evaluation.instructions:
            read_instruction(one, self.data.tasks)
        if self.warm_start is not None and self.warm_start.records is not None and not self.data.is_embedded:
            raise UmieError("warm_start.records: records are drawn only for the embedded data: remove `records`")
        tasks = self.data.tasks
        if self.grounders is not None:
            self._check_grounded()
        asked = [f"{name} {task}" for name, one in self.data.sets.items() for task in one.tasks]
        check_keys("task in mean_over:", self.mean_over, [*tasks, *([] if self.data.is_single else asked)])
        if self.training.fsdp and self.checkpoints is not None and self.checkpoints.early_stopping_patience is not None:
            raise UmieError(
                "checkpoints.early_stopping_patience needs dev scores, which runs with fsdp do not have: remove it"
            )
        if self.start_from is None:  # decided here, so that the id of a run has it
            fusion: Any = registries.fusions.get(self.fusion["name"])
            treated = self.training.treated(fusion.training_multipliers(self.fusion))
            object.__setattr__(self, "training", treated)
        return self

    def to_json(self) -> dict[str, Any]:
        """Return the config as plain data for another process; see ``from_json``."""
        return self.model_dump(mode="json")

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """Return the config that ``to_json`` was called on."""
        return cls(**{**values, "data": DataConfig(**values["data"])})

    @cached_property
    def trained_on(self) -> tuple[str, ...]:
        """The names of the data sets to train on."""
        return read_train_on(self.train_on, list(self.data.sets))

    @cached_property
    def wording(self) -> Wording:
        """Options that override those of the tasks, by task."""
        return self.in_style(read_instruction(self.instruction, self.data.tasks))

    def _check_grounded(self) -> None:
        """Raise UmieError unless the same tasks of all data sets can have calls, and the decoder can write them."""
        from umie.decoders.base import ScoringDecoder

        sets = self.data.sets.items()
        for task in self.data.tasks:
            own = {name: one.tasks[task] for name, one in sets if task in one.tasks}
            without = [name for name, options in own.items() if not options.get("grounded")]
            if without and len(without) < len(own):
                raise UmieError(
                    f"grounders: {task} is grounded in some data sets, and not in {', '.join(without)}: set grounded: "
                    "true there, too"
                )
            for name, options in own.items():
                if options.get("grounded") and options.get("style", CALLS) != CALLS:
                    raise UmieError(
                        f"grounders need the style {CALLS}, and that of {task} in {name} is {options['style']}: leave "
                        "it out"
                    )
        if not any(self.in_style({})):
            raise UmieError("grounders carry out calls of grounded tasks, and no task is: set grounded: true for one")
        decoder: Any = registries.decoders.get(self.decoder["name"])
        if isinstance(decoder, type) and issubclass(decoder, ScoringDecoder):
            raise UmieError(
                f"grounders: the decoder {self.decoder['name']} scores candidates and writes no calls: use another one"
            )

    def in_style(self, options: Wording) -> dict[str, dict[str, Any]]:
        """Return options of tasks with the style of the answers: that of calls, if grounders carry them out."""
        styled = {name: dict(own) for name, own in options.items()}
        if self.grounders is not None:
            for one in self.data.sets.values():
                for name, own in one.tasks.items():
                    if own.get("grounded"):
                        styled.setdefault(name, {})["style"] = CALLS
        return styled

    @cached_property
    def parts(self) -> dict[str, dict[str, Any]]:
        """Name and options of each part, from ``resolve_parts``, and the options of the visual embedding."""
        from umie.composition import resolve_parts

        parts = {slot: getattr(self, slot) for slot in PARTS}
        return {**resolve_parts(**parts), "visual_embedding": self.visual_embedding}
