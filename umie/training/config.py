"""How a model is trained, in the names of transformers' TrainingArguments wherever it has one."""

from __future__ import annotations

import math
from typing import Annotated

from pydantic import Field, field_validator, model_validator

from umie.configs import Config, Flag, Natural, Options, Positive, PositiveNumber, Share
from umie.errors import UmieError, check_choice

NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
DEFAULT_STEPS = 1000
STRATEGIES = ("proportional", "equal", "temperature")


class TrainingConfig(Config):
    """How a model is trained.

    Args:
        max_steps: optimizer steps; 1000 if ``num_train_epochs`` is not set either.
        num_train_epochs: passes over the training queries, in place of ``max_steps``.
        batch_size: queries per optimizer step, summed over all processes and micro-batches, so that a config means the
            same on one process and on many. (TrainingArguments counts per device.)
        gradient_accumulation_steps: micro-batches that each process splits its share of the batch into.
        learning_rate: peak rate of AdamW.
        learning_rate_multipliers: factors on that rate for parameters whose name begins with the key, e.g.
            ``{"fusion.gate_": 0.03}``; the longest matching key applies.
        warmup_ratio: share of the steps over which the rate rises linearly; it then falls linearly to 0.
        weight_decay: of AdamW, on matrices only.
        max_grad_norm: gradients are scaled down to this norm.
        label_smoothing_factor: of the cross-entropy.
        initialize_fusion: call ``Fusion.initialize`` on the first batch, before the first step.
        bf16: use bfloat16 autocast; weights and optimizer stay float32.
        gradient_checkpointing: keep only the states between the language model's blocks, and recompute the rest.
        torch_compile: compile the model: true, or the name of a backend.
        group_by_length: batch queries of similar length, for less padding; their order within the run stays random.
        freeze: groups (``text``, ``visual``, ``fusion``) or prefixes of parameters that are not trained.
        adapter: train a peft adapter inside the language model in place of its weights, e.g.
            ``{"type": "lora", "r": 8, "target_modules": ["q", "v"]}``; the other parts train as usual.
        fsdp: shard the model by PyTorch's FSDP (started by torchrun or accelerate): true, or options of transformers'
            ``fsdp_config``.
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
    initialize_fusion: Flag = False
    bf16: Flag = False
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

    def num_steps(self, num_queries: int) -> int:
        """Return the optimizer steps on so many training queries."""
        if self.num_train_epochs is None:
            return self.max_steps or DEFAULT_STEPS
        return max(1, math.ceil(self.num_train_epochs * num_queries / self.batch_size))


class Checkpoints(Config):
    """When a run is scored on the dev set and saved, and when it stops early.

    Args:
        save_steps: optimizer steps between two checkpoints; None makes ten of them.
        save_total_limit: checkpoints that are kept: the newest ones, and the best.
        metric_for_best_model: the dev score that picks the best model: ``mean_f1``, or one of a task, e.g. ``mner_f1``.
        early_stopping_patience: checkpoints without a better score after which the run stops; None never stops early.
        early_stopping_threshold: by how much a score must be better to count.
        report_to: where scores and losses are reported as well, e.g. ``tensorboard``, ``wandb``.
    """

    save_steps: Positive | None = None
    save_total_limit: Positive = 2
    metric_for_best_model: Annotated[str, Field(min_length=1)] = "mean_f1"
    early_stopping_patience: Positive | None = None
    early_stopping_threshold: NotNegative = 0.0
    report_to: tuple[str, ...] = ("tensorboard",)

    def interval(self, num_steps: int) -> int:
        """Return the optimizer steps between two checkpoints."""
        return self.save_steps or max(1, math.ceil(num_steps / 10))


class Sampling(Config):
    """How training draws from several data sets.

    Args:
        strategy: ``proportional`` to their queries, an equal share for each (``equal``), or their queries to the
            power 1 / ``temperature``, between the two.
        temperature: of the strategy ``temperature``; 1 is proportional, and the larger, the closer to equal.
    """

    strategy: str = "proportional"
    temperature: PositiveNumber = 2.0

    @field_validator("strategy")
    @classmethod
    def _known(cls, value: str) -> str:
        check_choice("strategy", value, STRATEGIES)
        return value
