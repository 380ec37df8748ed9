"""``train``: instruction tuning of a variant, with checkpoints if an output directory is given."""

from __future__ import annotations

import dataclasses
import os
import tempfile
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from accelerate import DistributedType
from torch import Tensor
from torch.utils.data import Dataset
from transformers import EarlyStoppingCallback, TrainingArguments, set_seed
from transformers.trainer_callback import PrinterCallback

from umie.errors import UmieError
from umie.model import UmieModel
from umie.processor import UmieProcessor
from umie.records import Medium, Record
from umie.training.checks import check_training, uses_bfloat16
from umie.training.config import Checkpoints, TrainingConfig
from umie.training.mixture import RunSampler, as_mixture
from umie.training.parts import adapt, freeze, has_adapter
from umie.training.trainer import OnDev, OnStep, Progress, RunTrainer, last_checkpoint, load_weights, state_of

NO_SHARDS = (
    "fsdp is enabled, but accelerate is not sharding: start the run with torchrun or accelerate launch on several "
    "GPUs, or remove fsdp"
)


def train(
    model: UmieModel,
    processor: UmieProcessor,
    dataset: Dataset[Any],
    config: TrainingConfig,
    *,
    seed: int = 0,
    on_step: OnStep | None = None,
    output: str | Path | None = None,
    checkpoints: Checkpoints | None = None,
    dev: OnDev | None = None,
    on_log: Callable[[int, Mapping[str, float]], None] | None = None,
    report_to: Sequence[str] = (),
    run_name: str | None = None,
    project: str | None = None,
    note: Callable[[str], None] = warnings.warn,
) -> dict[str, Any]:
    """Train the model in place.

    Args:
        model: any variant.
        processor: its processor.
        dataset: encoded queries: a QueryDataset, or a Mixture.
        config: the training options.
        seed: seed of the batches and of dropout.
        on_step: called after every step with the step, the number of steps and the last logged loss.
        output: directory of the checkpoints, from the newest of which training resumes exactly.
        checkpoints: when to save and score, if ``output`` is given.
        dev: scores a model on the dev set: returns values by name, including ``Checkpoints.metric_for_best_model``.
            Not supported with FSDP, under which no process has the whole model.
        on_log: called with the step and the logged values: losses, learning rates, dev scores.
        report_to: integrations that get the logged values, in addition to those of ``checkpoints``.
        run_name: the name of the run in integrations.
        project: the project of the run in integrations that have some.
        note: called with a line about each damaged checkpoint that is passed over for an older one.

    Returns:
        ``train_loss`` and ``steps``; with dev scores also ``best_step`` and ``best``, its score; with
        ``initialize_fusion`` also the measurements of the fusion.

    Raises:
        UmieError: ``output`` is given and a part of the model is not registered, so that its checkpoints could not be
            loaded again; the loss is not finite, the batch cannot be divided among the processes, or a checkpoint
            cannot be written (earlier checkpoints are kept).
    """
    check_training(config)
    if output is not None:
        model.check_can_be_saved()  # before the training, not after it
    set_seed(seed)
    mixture = as_mixture(dataset)
    asked = [record for part in mixture.datasets for record, _ in getattr(part, "asked", ())]
    if asked:
        processor.trained_places = tuple(
            medium for medium in processor.preprocessors if _has_places(asked, medium, processor)
        )
    steps = config.num_steps(len(mixture))
    saving = checkpoints or Checkpoints(report_to=())
    resumed = None if output is None else last_checkpoint(output, note)
    measured: dict[str, Any] = {}
    freeze(model, config.freeze, allow_all=config.adapter is not None)
    if config.adapter is not None and not has_adapter(model):
        adapt(model, config.adapter)
    if output is None and saving.early_stopping_patience is not None:
        raise UmieError("early_stopping_patience needs a directory for the best checkpoint: pass output to train")
    if resumed is not None and is_over(state_of(resumed), steps, saving):
        load_weights(model, resumed)
        return _summary(state_of(resumed))
    sampler = RunSampler(mixture, steps, config.batch_size, seed, group_by_length=config.group_by_length)
    if not model.is_trained:
        config = config.treated(model.fusion.training_multipliers(model.config.fusion))
    model.is_trained = True
    if config.initialize_fusion and resumed is None:
        count = min(len(mixture), 4 * config.batch_size)  # spread over all data sets
        first = processor.collate([mixture[index * len(mixture) // count] for index in range(count)])
        own = model.decoder.input_names
        inputs: dict[str, Any] = {name: value.to(model.device) for name, value in first.items() if name not in own}
        measured = model.initialize_fusion(**inputs)
    with ExitStack() as stack:
        folder = output or stack.enter_context(tempfile.TemporaryDirectory())
        arguments = _arguments(config, saving if output else None, steps, str(folder), seed, dev is not None)
        arguments.report_to = list(dict.fromkeys([*(arguments.report_to or ()), *report_to]))
        arguments.run_name = run_name or arguments.run_name
        if project is not None and hasattr(arguments, "project"):  # not in earlier versions of transformers 5
            arguments.project = project
        callbacks: list[Any] = [Progress(on_step, on_log)]
        if dev is not None and saving.early_stopping_patience is not None:
            callbacks.append(EarlyStoppingCallback(saving.early_stopping_patience, saving.early_stopping_threshold))
            if resumed is not None:
                callbacks[-1].early_stopping_patience_counter = _without_gain(state_of(resumed))
        try:
            trainer = RunTrainer(model, arguments, config, sampler, processor, dev, callbacks)
        except (ValueError, ImportError, RuntimeError) as error:  # e.g. an unknown or missing integration in report_to
            raise UmieError(f"training: {' '.join(str(error).split())}") from error
        trainer.pop_callback(PrinterCallback)
        if config.fsdp and trainer.accelerator.distributed_type != DistributedType.FSDP:
            raise UmieError(NO_SHARDS)
        with warnings.catch_warnings():
            # transformers warns about the order of scheduler and optimizer steps
            warnings.filterwarnings("ignore", category=UserWarning, module="torch.optim.lr_scheduler")
            model.drop_media = config.drop_media
            try:
                result = trainer.train(resume_from_checkpoint=None if resumed is None else str(resumed))
            finally:
                model.drop_media = 0.0
    summary = _summary(dataclasses.asdict(trainer.state))
    if resumed is None:
        summary["train_loss"] = result.training_loss  # includes the steps after the last log
    return {**summary, **measured}


def _has_places(records: Sequence[Record], medium: Medium, processor: UmieProcessor) -> bool:
    """Return whether the model sees places in most records with a medium."""
    if medium in processor.blind | processor.unused or processor.max_places(medium) == 0:
        return False
    counts = [len(record.places(medium)) > 0 for record in records if medium in record.media]
    return 2 * sum(counts) > len(counts)


def is_over(state: Mapping[str, Any], steps: int, saving: Checkpoints) -> bool:
    """Return whether a run is finished: all steps are done, or it stopped early."""
    patience = saving.early_stopping_patience
    return int(state["global_step"]) >= steps or (patience is not None and _without_gain(state) >= patience)


def _without_gain(state: Mapping[str, Any]) -> int:
    """Return the number of consecutive checkpoints without improvement."""
    kept = state.get("stateful_callbacks", {}).get("EarlyStoppingCallback", {})
    return int(kept.get("attributes", {}).get("early_stopping_patience_counter", 0))


def _summary(state: Mapping[str, Any]) -> dict[str, Any]:
    """Return the steps, the mean of the logged losses, and the best checkpoint of a run."""
    logged = [(entry["step"], entry["loss"]) for entry in state["log_history"] if "loss" in entry]
    before = [0, *(step for step, _ in logged)]
    total = sum(loss * (step - start) for (step, loss), start in zip(logged, before, strict=False))
    summary = {"train_loss": total / max(1, before[-1]), "steps": state["global_step"]}
    if state.get("best_global_step"):
        summary |= {"best_step": state["best_global_step"], "best": state["best_metric"]}
    return summary


def _arguments(
    config: TrainingConfig, saving: Checkpoints | None, steps: int, folder: str, seed: int, has_dev: bool
) -> TrainingArguments:
    processes = int(os.environ.get("WORLD_SIZE", 1))
    if config.fsdp and processes == 1:
        raise UmieError(NO_SHARDS)
    shares = config.gradient_accumulation_steps * processes
    if config.batch_size % shares:
        raise UmieError(
            f"batch_size is {config.batch_size}: use a multiple of {shares}, the number of processes ({processes}) "
            f"times gradient_accumulation_steps ({config.gradient_accumulation_steps})"
        )
    checkpointing = "activation_checkpointing"  # gradient_checkpointing in earlier versions of transformers 5
    if checkpointing not in {item.name for item in dataclasses.fields(TrainingArguments)}:
        checkpointing = "gradient_checkpointing"
    options: dict[str, Any] = {
        "output_dir": folder,
        "max_steps": steps,
        "per_device_train_batch_size": config.batch_size // shares,
        "gradient_accumulation_steps": config.gradient_accumulation_steps,
        "learning_rate": config.learning_rate,
        "lr_scheduler_type": "linear",
        "warmup_steps": round(config.warmup_ratio * steps),
        "weight_decay": config.weight_decay,
        "max_grad_norm": config.max_grad_norm,
        "seed": seed,
        "bf16": uses_bfloat16(config),
        checkpointing: config.gradient_checkpointing,
        "torch_compile": bool(config.torch_compile),
        "torch_compile_backend": config.torch_compile if isinstance(config.torch_compile, str) else None,
        "fsdp": bool(config.fsdp),
        "fsdp_config": dict(config.fsdp) if isinstance(config.fsdp, Mapping) else None,
        "ddp_find_unused_parameters": True,  # a batch without images leaves the visual parts unused
        "use_cpu": not (torch.cuda.is_available() or torch.backends.mps.is_available()),
        "dataloader_num_workers": config.dataloader_num_workers,
        "dataloader_pin_memory": torch.cuda.is_available(),
        "logging_steps": max(1, steps // 20),
        "logging_nan_inf_filter": False,  # RunTrainer stops at a loss that is not finite
        "report_to": [],
        "disable_tqdm": True,
        "remove_unused_columns": False,
        "save_strategy": "no",
    }
    if saving is not None:
        options |= {
            "logging_steps": max(1, min(10, steps // 20)),
            "report_to": list(saving.report_to),
            "save_strategy": "steps",
            "save_steps": saving.interval(steps),
            "save_total_limit": max(2, saving.save_total_limit),  # with 1, the Trainer deletes the newest
        }
        if has_dev:
            metric = saving.metric_for_best_model
            options |= {"eval_strategy": "steps", "eval_steps": saving.interval(steps)}
            options |= {"metric_for_best_model": metric, "greater_is_better": True}
    arguments = TrainingArguments(**options)
    if arguments.n_gpu > 1:  # avoid nn.DataParallel; torchrun starts one process per GPU
        arguments._n_gpu = 1
    return arguments


def visual_gradient(model: UmieModel, batch: Mapping[str, Tensor]) -> float:
    """Return the gradient norm of the visual path, i.e. of the encoders and the visual embedding.

    A gate at or below 0 starves this path; the norm shows this earlier than the scores.
    """
    parts = [part for part in (*model.media_encoders.values(), model.visual_embedding) if part is not None]
    parameters = [value for part in parts for value in part.parameters() if value.requires_grad]
    loss = model(**{name: value.to(model.device) for name, value in batch.items()}).loss
    if not parameters or loss is None:
        return 0.0
    gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
    norms = [gradient.norm() for gradient in gradients if gradient is not None]
    return float(torch.stack(norms).norm()) if norms else 0.0
