"""How a model is trained: options with their checks."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from umie.errors import UmieError, check_choice, check_flag, check_positive, check_share, check_whole

DEFAULT_STEPS = 1000
PRECISIONS = ("float32", "bfloat16")


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """How a model is trained.

    Args:
        steps: optimizer steps; 1000 where ``epochs`` is not given either.
        epochs: passes over the training queries, in place of ``steps``.
        batch_size: queries an optimizer step, over all processes and micro-batches, so that a config means the same
            on one process and on many.
        gradient_accumulation: micro-batches that each process cuts its share of the batch into.
        learning_rate: peak rate of AdamW.
        learning_rate_multipliers: factors on that rate for parameters whose name begins with the key, e.g.
            ``{"fusion.gate_": 0.03}``; the longest key that fits counts.
        warmup_share: share of the steps over which the rate rises linearly; it then falls linearly to 0.
        weight_decay: of AdamW, on matrices only.
        max_grad_norm: gradients are scaled down to this norm.
        label_smoothing: of the cross-entropy.
        initialize_fusion: call ``Fusion.initialize`` on the first batch, before the first step.
        precision: ``float32``, or ``bfloat16`` for autocast (weights and optimizer stay float32).
        gradient_checkpointing: keep the states between the language model's blocks only, and compute the rest again.
        compile: compile the model by torch.compile: true, or the name of a backend.
        length_bucketing: batch queries of like length, for less padding; the order within the run stays random.
        freeze: groups (``text``, ``visual``, ``fusion``) or prefixes of parameters that are not trained.
        adapter: train an adapter of peft inside the language model in place of its weights, e.g.
            ``{"type": "lora", "r": 8, "target_modules": ["q", "v"]}``; the other parts train as they do.
        fsdp: shard the model by PyTorch's FSDP (started by torchrun or accelerate): true, or options of transformers'
            ``fsdp_config``.
        num_workers: processes that prepare batches; 0 prepares them in the training process.
    """

    steps: int | None = None
    epochs: float | None = None
    batch_size: int = 32
    gradient_accumulation: int = 1
    learning_rate: float = 1e-4
    learning_rate_multipliers: Mapping[str, float] = field(default_factory=dict)
    warmup_share: float = 0.06
    weight_decay: float = 0.01
    max_grad_norm: float = 1.0
    label_smoothing: float = 0.0
    initialize_fusion: bool = False
    precision: str = "float32"
    gradient_checkpointing: bool = False
    compile: bool | str = False
    length_bucketing: bool = False
    freeze: Sequence[str] = ()
    adapter: Mapping[str, Any] | None = None
    fsdp: bool | Mapping[str, Any] = False
    num_workers: int = 0

    def __post_init__(self) -> None:
        if self.steps is not None and self.epochs is not None:
            raise UmieError(f"steps is {self.steps!r} and epochs is {self.epochs!r}: give one of them")
        if self.steps is not None:
            check_whole("steps", self.steps, 1)
        if self.epochs is not None:
            check_positive("epochs", self.epochs)
        for name in ("batch_size", "gradient_accumulation"):
            check_whole(name, getattr(self, name), 1)
        check_whole("num_workers", self.num_workers, 0)
        for name in ("learning_rate", "max_grad_norm"):
            check_positive(name, getattr(self, name))
        for name in ("warmup_share", "label_smoothing"):
            check_share(name, getattr(self, name), below_one=True)
        decay: Any = self.weight_decay
        if not isinstance(decay, int | float) or isinstance(decay, bool) or not 0 <= decay < float("inf"):
            raise UmieError(f"weight_decay is {self.weight_decay!r}: give 0 or more")
        for name in ("initialize_fusion", "gradient_checkpointing", "length_bucketing"):
            check_flag(name, getattr(self, name))
        if not isinstance(self.compile, bool | str):
            raise UmieError(f"compile is {self.compile!r}: give true, false or the name of a backend")
        check_choice("precision", self.precision, PRECISIONS)
        multipliers: Any = self.learning_rate_multipliers
        if not isinstance(multipliers, Mapping):
            raise UmieError(f"learning_rate_multipliers is {multipliers!r}: give a mapping of prefixes to factors")
        for prefix, factor in self.learning_rate_multipliers.items():
            if factor != 0:
                check_positive(f"learning_rate_multipliers[{prefix!r}]", factor)
        frozen: Any = self.freeze
        if not isinstance(frozen, list | tuple) or not all(isinstance(name, str) for name in frozen):
            raise UmieError(f"freeze is {frozen!r}: give a list of groups or prefixes of parameter names")
        if self.adapter is not None and not isinstance(self.adapter, Mapping):
            raise UmieError(f"adapter is {self.adapter!r}: give a mapping such as {{type: lora, r: 8}}")
        if not isinstance(self.fsdp, bool | Mapping):
            raise UmieError(f"fsdp is {self.fsdp!r}: give true, false or a mapping of transformers' fsdp_config")

    def num_steps(self, num_queries: int) -> int:
        """Return the optimizer steps on so many training queries."""
        if self.epochs is None:
            return DEFAULT_STEPS if self.steps is None else self.steps
        return max(1, math.ceil(self.epochs * num_queries / self.batch_size))


@dataclass(frozen=True, kw_only=True)
class Checkpoints:
    """When a run is scored on the dev set and saved, and when it ends early.

    Args:
        every: optimizer steps from one checkpoint to the next; None makes ten of them.
        keep: checkpoints that are kept: the newest ones, and the best.
        metric: what the dev scores are compared by: ``mean_f1``, or one of a task, e.g. ``mner_f1``.
        patience: checkpoints without a better score after which the run ends; None goes on to the end.
        threshold: by how much a score must be better to count.
        report_to: where scores and losses go as well: names of transformers, e.g. ``tensorboard``, ``wandb``.
    """

    every: int | None = None
    keep: int = 2
    metric: str = "mean_f1"
    patience: int | None = None
    threshold: float = 0.0
    report_to: Sequence[str] = ("tensorboard",)

    def __post_init__(self) -> None:
        for name in ("every", "patience"):
            if getattr(self, name) is not None:
                check_whole(name, getattr(self, name), 1)
        check_whole("keep", self.keep, 1)
        if not isinstance(self.threshold, int | float) or isinstance(self.threshold, bool) or not self.threshold >= 0:
            raise UmieError(f"threshold is {self.threshold!r}: give 0 or more")
        if not isinstance(self.metric, str) or not self.metric:
            raise UmieError(f"metric is {self.metric!r}: give mean_f1, or a score such as mner_f1")
        reported: Any = self.report_to
        if not isinstance(reported, list | tuple) or not all(isinstance(name, str) for name in reported):
            raise UmieError(f"report_to is {reported!r}: give a list such as [tensorboard]")

    def interval(self, num_steps: int) -> int:
        """Return the optimizer steps from one checkpoint to the next."""
        return self.every or max(1, math.ceil(num_steps / 10))
