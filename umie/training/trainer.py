"""The Trainer of a run: learning rates per part, mixtures, generated dev scores and exact resumption."""

from __future__ import annotations

import math
import os
import shutil
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor
from transformers import Trainer, TrainerCallback

from umie.checkpoints import MANIFEST, check_manifest, is_model_file, write_manifest
from umie.errors import UmieError, UnknownNameError, shown
from umie.files import read_json
from umie.processor import UmieProcessor
from umie.training.config import TrainingConfig
from umie.training.mixture import RunSampler
from umie.weights import check_finite, read_state_dict

# in the messages of libraries that wrap errors of the disk: full, over quota, read-only
SAVING = "umie_saving"  # a file of a checkpoint that is being written
IO_WORDS = (
    "No space left",
    "File too large",
    "os error",
    "I/O error",
    "inline_container",
    "iostream",
    "write failed",
)
OnStep = Callable[[int, int, float], None]  # step, number of steps, loss
OnDev = Callable[[Any], dict[str, float]]  # maps a model to its dev scores


class RunTrainer(Trainer):
    """A Trainer with learning rates per part and a fixed order of queries for the whole run.

    The loss of a step is the mean over all its tokens, however they are distributed over processes and micro-batches.
    Two processes therefore take the same step as one process with twice the batch.
    """

    def __init__(
        self,
        model: Any,
        arguments: Any,
        config: TrainingConfig,
        sampler: RunSampler,
        processor: UmieProcessor,
        dev: OnDev | None,
        callbacks: list[TrainerCallback],
    ) -> None:
        self.run_config, self.sampler, self.processor, self.dev = config, sampler, processor, dev
        self.optimizer: torch.optim.Optimizer | None = None
        self.control: Any
        super().__init__(
            model,
            arguments,
            train_dataset=sampler.mixture,
            eval_dataset=None if dev is None else sampler.mixture,  # required, but unused: see evaluate
            data_collator=processor.collate,
            callbacks=callbacks,
        )
        self.model_accepts_loss_kwargs = True  # makes the Trainer count the tokens of a step, for compute_loss

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        return self.sampler

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None, **kwargs: Any
    ) -> Any:
        """Return this process's part of the step's mean loss, scaled so that the mean of DDP is the total."""
        outputs = model(**inputs)
        labels, decoder = inputs["labels"], self.model.decoder
        loss = outputs["loss"]
        # the Trainer's own label smoothing would hide the labels from the decoder, which shifts them
        if self.run_config.label_smoothing_factor:
            loss = decoder.loss(outputs["logits"], labels, self.run_config.label_smoothing_factor)
        if num_items_in_batch is not None:  # undo DDP's mean over processes
            own = decoder.num_targets(labels)
            loss = loss * (own / num_items_in_batch * self.accelerator.num_processes)
        return (loss, outputs) if return_outputs else loss

    def _get_num_items_in_batch(self, batch_samples: list[Any], device: Any) -> Any:
        """Count the terms of the decoder's loss, which the Trainer takes for the labels that are not ignored."""
        counts = [self.model.decoder.num_targets(batch["labels"]) for batch in batch_samples]
        return super()._get_num_items_in_batch([{"labels": torch.zeros(int(count))} for count in counts], device)

    def training_step(self, *args: Any, **kwargs: Any) -> Tensor:
        """Compute the gradient of a micro-batch; raise UmieError if the loss is not finite."""
        loss: Tensor = super().training_step(*args, **kwargs)
        if not math.isfinite(float(loss)):
            step = self.state.global_step
            places = [self.sampler.mixture.place_of(index) for index in self.sampler.batch(step)]
            asked = [dataset.asked[index][0] for dataset, index in places if hasattr(dataset, "asked")]
            named = ", ".join(dict.fromkeys(str(record.id or repr(record.text[:30])) for record in asked[:6]))
            records = f", or check the records of this step: {named}, ..." if named else ""
            raise UmieError(
                f"the loss is {float(loss)} at step {step + 1}; the weights were not updated. Existing checkpoints are "
                "kept but may already be bad. Restart, or continue from an earlier checkpoint with start_from; use a "
                f"lower learning_rate{records}"
            )
        return loss

    def create_optimizer(self, model: Any = None) -> Any:
        """Build AdamW with one parameter group per learning rate and weight decay."""
        if self.optimizer is None:
            multipliers = self.run_config.learning_rate_multipliers
            groups: dict[tuple[float, float], list[Tensor]] = {}
            for name, parameter in (self.model if model is None else model).named_parameters():
                if parameter.requires_grad:
                    name = name.removeprefix("module.").replace("_fsdp_wrapped_module.", "").replace("_orig_mod.", "")
                    fitting = [prefix for prefix in multipliers if name.startswith(prefix)]
                    factor = multipliers[max(fitting, key=len)] if fitting else 1.0
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

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """Score the dev set by generation. Every process scores all of it, so that all make the same decisions."""
        if self.dev is None:
            raise UmieError("this run has no dev set")
        model = self.accelerator.unwrap_model(self.model_wrapped, keep_torch_compile=False)
        scores = {f"eval_{name}": value for name, value in self.dev(model).items()}
        metric = self.args.metric_for_best_model
        if metric is not None and f"eval_{metric}" not in scores:
            raise UnknownNameError("metric", metric, [name.removeprefix("eval_") for name in scores])
        self.log(scores)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, scores)
        return scores

    def _save(self, output_dir: Any = None, state_dict: Any = None) -> None:
        super()._save(output_dir, state_dict)
        if self.args.should_save:
            folder = Path(output_dir or self.args.output_dir)
            (folder / "training_args.bin").unlink(missing_ok=True)  # a pickle that is never read
            self.processor.save_pretrained(folder)

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        folder = Path(self.args.output_dir) / f"checkpoint-{self.state.global_step}"
        try:
            if self.args.should_save:
                folder.mkdir(parents=True, exist_ok=True)
                (folder / SAVING).touch()
            super()._save_checkpoint(model, trial)
            self.accelerator.wait_for_everyone()  # each process has written its own files
            if self.args.should_save:
                paths = (path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
                others = [name for name in paths if name not in (MANIFEST, SAVING) and not is_model_file(name)]
                write_manifest(folder, others, replaces=lambda name: not is_model_file(name))
                (folder / SAVING).unlink()
        except (OSError, SafetensorError, RuntimeError) as error:
            if not isinstance(error, OSError) and not any(words in str(error) for words in IO_WORDS):
                raise
            shutil.rmtree(folder, ignore_errors=True)
            last, _ = find_checkpoint(self.args.output_dir)
            kept = "there is no earlier checkpoint" if last is None else f"{last.name} is kept"
            raise UmieError(
                f"{folder} cannot be written ({' '.join(str(error).split())}); {kept}: free disk space, then run the "
                "same command to resume"
            ) from error


class Progress(TrainerCallback):
    """Passes the Trainer's progress on."""

    def __init__(self, on_step: OnStep | None, on_log: Callable[[int, Mapping[str, float]], None] | None) -> None:
        self.on_step, self.on_logged = on_step, on_log
        self.loss = float("nan")

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        """Store the loss and forward the logs."""
        self.loss = (logs or {}).get("loss", self.loss)
        if self.on_logged is not None and logs and state.is_world_process_zero:
            self.on_logged(state.global_step, logs)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Report the step."""
        if self.on_step is not None and state.is_world_process_zero:
            self.on_step(state.global_step, state.max_steps, float(self.loss))


def last_checkpoint(folder: str | Path, note: Callable[[str], None] = warnings.warn) -> Path | None:
    """Return the newest whole checkpoint of a run, or None if there are no checkpoints.

    The newest that is not whole was left by a killed run, or damaged since; an older one is used instead.

    Args:
        folder: the output directory of the run.
        note: called with a line about each damaged checkpoint that is newer.

    Raises:
        UmieError: there are checkpoints, but none is whole, and not only because a save was interrupted: to train again
            would silently lose the work in them.
    """
    found, damaged = find_checkpoint(folder)
    lost = [checkpoint for checkpoint in damaged if not (checkpoint / SAVING).exists()]
    if found is None and lost:
        reasons = "; ".join(f"{checkpoint.name}: {damaged[checkpoint]}" for checkpoint in lost)
        raise UmieError(
            f"{folder}: training cannot resume, as none of its checkpoints is whole: {reasons}. Restore one, or to "
            "train again from the start, delete the folder or use another output"
        )
    for checkpoint, problem in damaged.items():
        instead = f"{found.name} is used" if found else "there is no older one, so training starts from the beginning"
        note(f"{checkpoint.name} is damaged or incomplete, {instead}: {problem}")
    return found


def find_checkpoint(folder: str | Path) -> tuple[Path | None, dict[Path, UmieError]]:
    """Return the newest whole checkpoint of a run, if any, and what is wrong with the newer ones.

    A checkpoint is whole if its manifest, which is written last, lists what resuming needs, and no file differs from
    it.
    """
    folders = [path for path in Path(folder).glob("checkpoint-*") if path.name.removeprefix("checkpoint-").isdecimal()]
    damaged = {}
    for checkpoint in sorted(folders, key=_step_of, reverse=True):
        try:
            check_whole_checkpoint(checkpoint)
        except UmieError as error:
            damaged[checkpoint] = error
        else:
            (checkpoint / SAVING).unlink(missing_ok=True)  # left by a kill just after its last file
            return checkpoint, damaged
    return None, damaged


def check_whole_checkpoint(checkpoint: Path) -> None:
    """Raise UmieError unless a checkpoint has all files of its manifest, unchanged, and those that resuming needs."""
    listed = check_manifest(checkpoint)
    if not listed:
        raise UmieError(f"{checkpoint} has no {MANIFEST}, which is written last")
    processes = int(os.environ.get("WORLD_SIZE", 1))
    random_states = [f"rng_state_{rank}.pth" for rank in range(processes)] if processes > 1 else []
    wanted = {
        "weights": any(name.startswith("model") and is_model_file(name) for name in listed),
        "optimizer": any(name.startswith("optimizer") for name in listed),
        "trainer_state.json": "trainer_state.json" in listed,
        **{name: name in listed for name in random_states},
    }
    for name, is_there in wanted.items():
        if not is_there:
            raise UmieError(f"{checkpoint}: its {MANIFEST} does not list the {name}")
    step = state_of(checkpoint).get("global_step")
    if step != _step_of(checkpoint):
        raise UmieError(f"{checkpoint}: its state is that of step {shown(step)}")


def _step_of(checkpoint: Path) -> int:
    return int(checkpoint.name.removeprefix("checkpoint-"))


def state_of(checkpoint: Path) -> dict[str, Any]:
    """Return the state of the Trainer saved in a checkpoint; raise UmieError if it cannot be read."""
    path = checkpoint / "trainer_state.json"
    state = read_json(path, "the state of the Trainer", allow_nan=True)
    if not isinstance(state, dict):
        raise UmieError(f"{path}: contains {shown(state)}: expected the state of the Trainer")
    return state


def load_weights(model: Any, checkpoint: Path) -> None:
    """Load the weights of a checkpoint into a model.

    Raises:
        UmieError: they are missing, damaged or not finite, or do not match.
    """
    check_manifest(checkpoint, is_model_file)
    state = read_state_dict(checkpoint / "model.safetensors")
    missing, unexpected = model.load_state_dict(state, strict=False)
    others = {*unexpected, *missing} - set(model.all_tied_weights_keys)
    if others:
        raise UmieError(f"{checkpoint} belongs to another model: {', '.join(sorted(others)[:3])} do not match")
    check_finite(model, checkpoint)
    model.is_trained = True
