"""The Trainer of a run: what transformers' own does not know about groups of rates, mixtures and exact resumption."""

from __future__ import annotations

import json
import math
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor
from transformers import Trainer, TrainerCallback

from umie.errors import UmieError, UnknownNameError
from umie.processor import IGNORED, UmieProcessor
from umie.training.config import TrainingConfig
from umie.training.mixture import RunSampler

OnStep = Callable[[int, int, float], None]  # step, of how many, loss
OnDev = Callable[[Any], dict[str, float]]  # a model to its dev scores


class RunTrainer(Trainer):
    """A Trainer with a learning rate for each part and an order of queries that holds for the whole run.

    The loss of a step is the sum over its tokens divided by their number, whichever process or micro-batch they fall
    to, so that two processes take the step that one takes with the doubled batch.
    """

    def __init__(
        self,
        model: Any,
        arguments: Any,
        config: TrainingConfig,
        sampler: RunSampler,
        processor: UmieProcessor,
        *,
        dev: OnDev | None = None,
        **options: Any,
    ) -> None:
        self.run_config, self.sampler, self.processor, self.dev = config, sampler, processor, dev
        self.optimizer: torch.optim.Optimizer | None = None
        self.control: Any
        super().__init__(
            model,
            arguments,
            train_dataset=sampler.mixture,
            eval_dataset=None if dev is None else sampler.mixture,  # asked for, never read: see evaluate
            data_collator=processor.collate,
            **options,
        )
        self.model_accepts_loss_kwargs = True  # the Trainer counts the tokens of a step, for compute_loss below

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        return self.sampler

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None, **kwargs: Any
    ) -> Any:
        """Return this process's part of the step's mean cross-entropy, scaled so that DDP's mean gives the sum."""
        outputs = model(**inputs)
        labels = inputs["labels"]
        own = labels.ne(IGNORED).sum()
        loss = outputs["loss"]
        if (
            self.run_config.label_smoothing_factor
        ):  # not by the Trainer, which keeps the labels from the decoder that shifts them
            loss = F.cross_entropy(
                outputs["logits"].flatten(0, 1),
                labels.flatten(),
                ignore_index=IGNORED,
                label_smoothing=self.run_config.label_smoothing_factor,
            )
        if num_items_in_batch is not None:  # the mean over the processes, which DDP takes, is undone
            loss = loss * (own / num_items_in_batch * self.accelerator.num_processes)
        return (loss, outputs) if return_outputs else loss

    def training_step(self, *args: Any, **kwargs: Any) -> Tensor:
        """Take a micro-batch's gradient; a loss that is no number ends the run."""
        loss: Tensor = super().training_step(*args, **kwargs)
        if not math.isfinite(float(loss)):
            raise UmieError(self._about_loss(float(loss)))
        return loss

    def _about_loss(self, loss: float) -> str:
        step = self.state.global_step
        places = [self.sampler.mixture.place_of(index) for index in self.sampler.batch(step)]
        asked = [getattr(dataset, "asked", {})[index][0] for dataset, index in places if hasattr(dataset, "asked")]
        named = ", ".join(dict.fromkeys(str(record.id or repr(record.text[:30])) for record in asked[:6]))
        records = f", or look at the records of the step: {named}, ..." if named else ""
        return (
            f"the loss is {loss} at step {step + 1}, which has changed nothing; what was saved stands, though an "
            "earlier step may have spoilt it. Start anew, or from a checkpoint by start_from, with a lower "
            f"learning_rate{records}"
        )

    def create_optimizer(self, model: Any = None) -> Any:
        """Build AdamW with a group of parameters for each learning rate and weight decay."""
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
        """Score the dev set by generation; every process scores all of it, so that all decide alike."""
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
            (folder / "training_args.bin").unlink(missing_ok=True)  # a pickle that nothing here reads
            self.processor.save_pretrained(folder)

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        folder = Path(self.args.output_dir) / f"checkpoint-{self.state.global_step}"
        try:
            super()._save_checkpoint(model, trial)
        except (OSError, SafetensorError, RuntimeError) as error:
            if not is_disk_error(error):
                raise
            shutil.rmtree(folder, ignore_errors=True)
            last = last_checkpoint(self.args.output_dir)
            stands = "nothing was saved before" if last is None else f"{last.name} stands"
            raise UmieError(
                f"{folder} cannot be written ({' '.join(str(error).split())}); {stands}: make room, then run the same "
                "command to go on"
            ) from error


class Progress(TrainerCallback):
    """Passes the Trainer's progress on."""

    def __init__(self, on_step: OnStep | None, on_log: Callable[[int, Mapping[str, float]], None] | None) -> None:
        self.on_step, self.on_logged = on_step, on_log
        self.loss = float("nan")

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        """Keep the loss, and pass on what is logged."""
        self.loss = (logs or {}).get("loss", self.loss)
        if self.on_logged is not None and logs and state.is_world_process_zero:
            self.on_logged(state.global_step, logs)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Tell the step."""
        if self.on_step is not None and state.is_world_process_zero:
            self.on_step(state.global_step, state.max_steps, float(self.loss))


def last_checkpoint(folder: str | Path) -> Path | None:
    """Return the newest checkpoint of a run that was written to its end, or None.

    The state is the last file that a checkpoint gets, so that what a killed run left half written is passed over; of
    several processes, each must have left the state of its random numbers.
    """
    found = []
    processes = int(os.environ.get("WORLD_SIZE", 1))
    random_states = [f"rng_state_{rank}.pth" for rank in range(processes)] if processes > 1 else []
    for state in Path(folder).glob("checkpoint-*/trainer_state.json"):
        try:
            step = json.loads(state.read_text(encoding="utf-8"))["global_step"]
        except (OSError, ValueError, KeyError):
            continue
        folder = state.parent
        has_weights = any((folder / name).is_file() for name in ("model.safetensors", "model.safetensors.index.json"))
        has_optimizer = any((folder / name).exists() for name in ("optimizer.pt", "optimizer.bin", "optimizer_0"))
        is_whole = has_weights and has_optimizer and all((folder / name).is_file() for name in random_states)
        if folder.name == f"checkpoint-{step}" and is_whole:
            found.append((step, folder))
    return max(found)[1] if found else None


def state_of(checkpoint: Path) -> dict[str, Any]:
    """Return the Trainer's state in a checkpoint."""
    state: dict[str, Any] = json.loads((checkpoint / "trainer_state.json").read_text(encoding="utf-8"))
    return state


def load_weights(model: Any, checkpoint: Path) -> None:
    """Put the weights of a checkpoint of a run into its model; raise UmieError if they are of another or not there."""
    try:
        state = load_file(checkpoint / "model.safetensors")
    except (OSError, SafetensorError) as error:
        raise UmieError(f"{checkpoint}: its weights cannot be read: {' '.join(str(error).split())}") from error
    missing, unexpected = model.load_state_dict(state, strict=False)
    others = {*unexpected, *missing} - set(model.all_tied_weights_keys)
    if others:
        raise UmieError(f"{checkpoint} is of another model: {', '.join(sorted(others)[:3])} do not fit")


def is_disk_error(error: BaseException) -> bool:
    """Say whether an error of a save is the disk's: full, over quota, read-only; libraries wrap it in their own."""
    return isinstance(error, OSError) or any(words in str(error) for words in _DISK_ERRORS)


_DISK_ERRORS = (
    "No space left",
    "File too large",
    "os error",
    "I/O error",
    "inline_container",
    "iostream",
    "write failed",
)
