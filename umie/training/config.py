"""Training options. Names follow the TrainingArguments of transformers where they exist."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from umie.configs import Config, Flag, Natural, Options, Positive, PositiveNumber, Share
from umie.errors import UmieError, check_choice

NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
DEFAULT_STEPS = 1000
STRATEGIES = ("proportional", "equal", "temperature")


class TrainingConfig(Config):
    """Options of a training run.

    Args:
        max_steps: number of optimizer steps; 1000 if ``num_train_epochs`` is not set either.
        num_train_epochs: passes over the training queries, in place of ``max_steps``.
        batch_size: queries per optimizer step, over all processes and micro-batches. (TrainingArguments counts per
            device.) A config therefore means the same with any number of processes.
        gradient_accumulation_steps: micro-batches per step in each process.
        learning_rate: peak learning rate of AdamW.
        learning_rate_multipliers: factors on the learning rate by parameter name prefix, e.g.
            ``{"fusion.gate_": 0.03}``; the longest matching prefix applies.
        warmup_ratio: share of the steps with a linearly rising learning rate, which then decays linearly to 0.
        weight_decay: weight decay of AdamW, applied to matrices only.
        max_grad_norm: maximum gradient norm, for clipping.
        label_smoothing_factor: label smoothing of the cross-entropy.
        drop_media: the share of queries for which a medium is hidden in each step, so that one model also serves
            records without it.
        initialize_fusion: call ``Fusion.initialize`` on the first batch, before the first step. None does so, and adds
            the fusion's own multipliers, if the fusion has a gate that would close otherwise, and the model is new.
        bf16: use bfloat16 autocast; weights and optimizer stay in float32. ``auto`` uses it where the device has
            instructions for it; without them it takes several times as long as float32.
        gradient_checkpointing: keep only the states between the blocks of the language model and recompute the rest.
        torch_compile: compile the model: true, or the name of a backend.
        group_by_length: batch queries of similar length to reduce padding; batches still come in random order.
        freeze: parameter groups (``text``, ``visual``, ``fusion``) or name prefixes that are not trained.
        adapter: train a peft adapter in the language model instead of its weights, e.g.
            ``{"type": "lora", "r": 8, "target_modules": ["q", "v"]}``; the other parts train as usual.
        fsdp: shard the model with PyTorch's FSDP (started with torchrun or accelerate): true, or options for
            ``fsdp_config`` of transformers.
        dataloader_num_workers: processes that prepare batches; 0 prepares them in the training process.
    """

    max_steps: Positive | None = None
    num_train_epochs: PositiveNumber | None = None
    batch_size: Positive = 32
    gradient_accumulation_steps: Positive = 1
    learning_rate: PositiveNumber = 1e-4
    learning_rate_multipliers: dict[str, NotNegative] = Field(default_factory=dict)
    warmup_ratio: Share = 0.06
    weight_decay: NotNegative = 0.01
    max_grad_norm: PositiveNumber = 1.0
    label_smoothing_factor: Share = 0.0
    drop_media: Share = 0.0
    initialize_fusion: Flag | None = None
    bf16: Literal[True, False, "auto"] = False
    gradient_checkpointing: Flag = False
    torch_compile: Flag | str = False
    group_by_length: Flag = False
    freeze: tuple[str, ...] = ()
    adapter: Options | None = None
    fsdp: Flag | Options = False
    dataloader_num_workers: Natural = 0

    @model_validator(mode="after")
    def _one_length(self) -> TrainingConfig:
        if self.max_steps is not None and self.num_train_epochs is not None:
            raise UmieError(
                f"max_steps is {self.max_steps} and num_train_epochs is {self.num_train_epochs:g}: set one of them"
            )
        return self

    def treated(self, multipliers: Mapping[str, float]) -> TrainingConfig:
        """Return the config with ``initialize_fusion`` decided, if it is None.

        Args:
            multipliers: the learning rates that a fusion asks for (``Fusion.training_multipliers``), with which it
                is initialized; those of the config override them. Without any, it is not initialized.
        """
        if self.initialize_fusion is not None:
            return self
        changed = {**multipliers, **self.learning_rate_multipliers}
        return self.model_copy(update={"initialize_fusion": bool(multipliers), "learning_rate_multipliers": changed})

    def num_steps(self, num_queries: int) -> int:
        """Return the number of optimizer steps for a number of training queries."""
        if self.num_train_epochs is None:
            return self.max_steps or DEFAULT_STEPS
        return max(1, math.ceil(self.num_train_epochs * num_queries / self.batch_size))


def _has_tensorboard() -> bool:
    return importlib.util.find_spec("tensorboard") is not None


class Checkpoints(Config):
    """When to save a run and score it on the dev set, and when to stop early.

    Args:
        save_steps: optimizer steps between checkpoints; None saves ten checkpoints per run.
        save_total_limit: number of newest checkpoints to keep, in addition to the best.
        metric_for_best_model: the dev score that selects the best model: ``mean_f1``, or that of a task, e.g.
            ``mner_f1``.
        early_stopping_patience: checkpoints without improvement after which the run stops; None never stops early.
        early_stopping_threshold: minimum increase of the score that counts as an improvement.
        report_to: integrations that log losses and scores, e.g. ``wandb``; by default ``tensorboard``, if it is
            installed.
    """

    save_steps: Positive | None = None
    save_total_limit: Positive = 2
    metric_for_best_model: Annotated[str, Field(min_length=1)] = "mean_f1"
    early_stopping_patience: Positive | None = None
    early_stopping_threshold: NotNegative = 0.0
    report_to: tuple[str, ...] = Field(default_factory=lambda: ("tensorboard",) if _has_tensorboard() else ())

    def interval(self, num_steps: int) -> int:
        """Return the number of optimizer steps between checkpoints."""
        return self.save_steps or max(1, math.ceil(num_steps / 10))


class Sampling(Config):
    """How training samples from several data sets.

    Args:
        strategy: ``proportional`` to the number of queries, ``equal`` shares, or ``temperature``: proportional to the
            number of queries to the power of 1 / ``temperature``.
        temperature: 1 is proportional; larger values approach equal shares.
    """

    strategy: str = "proportional"
    temperature: PositiveNumber = 2.0

    @field_validator("strategy")
    @classmethod
    def _known(cls, value: str) -> str:
        check_choice("strategy", value, STRATEGIES)
        return value
