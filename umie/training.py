"""Instruction tuning of a variant on transformers' Trainer."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import Trainer, TrainerCallback, TrainingArguments, set_seed

from umie.errors import UmieError, check_flag, check_positive, check_share, check_whole
from umie.model import UmieModel
from umie.processor import IGNORED, UmieProcessor
from umie.query_dataset import QueryDataset

OnStep = Callable[[int, int, float], None]  # step, of how many, loss


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """How a model is trained.

    Args:
        steps: optimizer steps.
        batch_size: queries a step.
        learning_rate: peak rate of AdamW.
        learning_rate_multipliers: factors on that rate for parameters whose name begins with the key, e.g.
            ``{"fusion.gate_": 0.03}``; the longest key that fits counts.
        warmup_share: share of the steps over which the rate rises linearly; it then falls linearly to 0.
        weight_decay: of AdamW, on matrices only.
        max_grad_norm: gradients are scaled down to this norm.
        label_smoothing: of the cross-entropy.
        initialise_fusion: call ``Fusion.initialise`` on the first batch, before the first step.
    """

    steps: int = 1000
    batch_size: int = 32
    learning_rate: float = 1e-4
    learning_rate_multipliers: Mapping[str, float] = field(default_factory=dict)
    warmup_share: float = 0.06
    weight_decay: float = 0.01
    max_grad_norm: float = 1.0
    label_smoothing: float = 0.0
    initialise_fusion: bool = False

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size"):
            check_whole(name, getattr(self, name), 1)
        for name in ("learning_rate", "max_grad_norm"):
            check_positive(name, getattr(self, name))
        for name in ("warmup_share", "label_smoothing"):
            check_share(name, getattr(self, name), below_one=True)
        if isinstance(self.weight_decay, str | bool) or not 0 <= self.weight_decay < float("inf"):
            raise UmieError(f"weight_decay is {self.weight_decay!r}: give 0 or more")
        check_flag("initialise_fusion", self.initialise_fusion)
        multipliers: Any = self.learning_rate_multipliers
        if not isinstance(multipliers, Mapping):
            raise UmieError(f"learning_rate_multipliers is {multipliers!r}: give a mapping of prefixes to factors")
        for prefix, factor in self.learning_rate_multipliers.items():
            if factor != 0:
                check_positive(f"learning_rate_multipliers[{prefix!r}]", factor)


def train(
    model: UmieModel,
    processor: UmieProcessor,
    dataset: QueryDataset,
    config: TrainingConfig,
    *,
    seed: int = 0,
    on_step: OnStep | None = None,
) -> dict[str, float]:
    """Train the model in place.

    Args:
        model: any variant.
        processor: its processor.
        dataset: encoded queries, in an order of no matter: batches are drawn by ``seed``.
        config: rates and sizes.
        seed: of the batches and of dropout.
        on_step: called after every step with the step, the number of steps and the last logged loss.

    Returns:
        ``train_loss``, and what the fusion's initialisation measured, if it was asked for.
    """
    set_seed(seed)
    measured = {}
    if config.initialise_fusion:
        first = processor.collate([dataset[index] for index in range(min(len(dataset), 4 * config.batch_size))])
        inputs: dict[str, Any] = {name: value.to(model.device) for name, value in first.items() if name != "labels"}
        measured = model.initialise_fusion(**inputs)
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            output_dir=folder,
            max_steps=config.steps,
            per_device_train_batch_size=config.batch_size,
            learning_rate=config.learning_rate,
            lr_scheduler_type="linear",
            warmup_steps=round(config.warmup_share * config.steps),
            weight_decay=config.weight_decay,
            max_grad_norm=config.max_grad_norm,
            seed=seed,
            save_strategy="no",
            eval_strategy="no",
            logging_steps=max(1, config.steps // 20),
            report_to=[],
            disable_tqdm=True,
            remove_unused_columns=False,
            dataloader_pin_memory=False,
        )
        trainer = _Trainer(
            model,
            arguments,
            multipliers=config.learning_rate_multipliers,
            label_smoothing=config.label_smoothing,
            train_dataset=dataset,
            data_collator=processor.collate,
            callbacks=[_Progress(on_step)],
        )
        trainer.pop_callback(_printer())
        result = trainer.train()
    return {"train_loss": result.training_loss, **measured}


def visual_gradient(model: UmieModel, batch: Mapping[str, Tensor]) -> float:
    """Return the norm of the loss's gradient on the visual path: the encoder and the visual embedding.

    A gate at or below 0 starves this path; the norm tells before the scores do.
    """
    parameters = [
        parameter
        for part in (model.encoder, model.visual_embedding)
        if part is not None
        for parameter in part.parameters()
        if parameter.requires_grad
    ]
    loss = model(**{name: value.to(model.device) for name, value in batch.items()}).loss
    if not parameters or loss is None:
        return 0.0
    gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
    norms = [gradient.norm() for gradient in gradients if gradient is not None]
    return float(torch.stack(norms).norm()) if norms else 0.0


class _Trainer(Trainer):
    """A Trainer whose optimizer has a group of parameters for each learning rate."""

    def __init__(self, *args: Any, multipliers: Mapping[str, float], label_smoothing: float, **kwargs: Any) -> None:
        self.multipliers = multipliers
        self.smoothing = label_smoothing
        self.optimizer: torch.optim.Optimizer | None = None
        super().__init__(*args, **kwargs)

    def compute_loss(self, model: Any, inputs: Any, return_outputs: bool = False, **kwargs: Any) -> Any:
        outputs = model(**inputs)
        loss = outputs.loss
        if self.smoothing:  # not by the Trainer, which keeps the labels from the decoder that shifts them
            loss = F.cross_entropy(
                outputs.logits.flatten(0, 1),
                inputs["labels"].flatten(),
                ignore_index=IGNORED,
                label_smoothing=self.smoothing,
            )
        return (loss, outputs) if return_outputs else loss

    def create_optimizer(self, model: Any = None) -> Any:
        if self.optimizer is None:
            groups: dict[tuple[float, float], list[Tensor]] = {}
            for name, parameter in self.model.named_parameters():
                if parameter.requires_grad:
                    fitting = [prefix for prefix in self.multipliers if name.startswith(prefix)]
                    factor = self.multipliers[max(fitting, key=len)] if fitting else 1.0
                    decay = self.args.weight_decay if parameter.ndim > 1 else 0.0
                    groups.setdefault((factor, decay), []).append(parameter)
            self.optimizer = torch.optim.AdamW(
                [
                    {"params": parameters, "lr": self.args.learning_rate * factor, "weight_decay": decay}
                    for (factor, decay), parameters in groups.items()
                ],
                lr=self.args.learning_rate,
                fused=True,
            )
        return self.optimizer


class _Progress(TrainerCallback):
    """Passes the Trainer's progress on."""

    def __init__(self, on_step: OnStep | None) -> None:
        self.on_step = on_step
        self.loss = float("nan")

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        self.loss = (logs or {}).get("loss", self.loss)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self.on_step is not None:
            self.on_step(state.global_step, state.max_steps, float(self.loss))


def _printer() -> Any:
    from transformers.trainer_callback import PrinterCallback

    return PrinterCallback
