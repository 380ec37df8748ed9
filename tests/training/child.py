"""A small training run in its own process: ``python child.py FOLDER OPTIONS_AS_JSON``.

Options: ``training`` (of TrainingConfig), ``checkpoints`` (of Checkpoints), ``dropout``, ``kill_at`` (the step after
which the process kills itself), ``stop_at`` (the step after which KeyboardInterrupt is raised), ``cpu_shards`` (make
accelerate shard on CPUs, which it supports on GPUs only). Losses go to FOLDER/losses.jsonl, one line per log; the
gradients of every step in the first process go to FOLDER/gradients.safetensors.
"""

import contextlib
import itertools
import json
import os
import signal
import sys
from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch.optim.optimizer import register_optimizer_step_pre_hook

from umie.composition import compose, default_tokenizer
from umie.data.synthetic import LABELS, SyntheticConfig, scenes
from umie.evaluation.queries import QueryDataset
from umie.training import Checkpoints, TrainingConfig, train

TRAINING = {"max_steps": 14, "batch_size": 4, "learning_rate": 1e-3, "initialize_fusion": True}
TASKS = {task: {"labels": labels} for task, labels in LABELS.items()}


def run(folder, options):
    """Train a gated variant with dropout on twelve embedded records; return the model and the result of ``train``."""
    records = [
        replace(scene.record, image=scene.image) for scene in itertools.islice(scenes(SyntheticConfig(), "train"), 12)
    ]
    dropout = options.get("dropout", 0.1)
    torch.manual_seed(0)
    model, processor = compose(
        fusion={"name": "gated", "dropout": dropout},
        decoder={"source": "tiny", "overrides": {"dropout_rate": dropout}},
        tasks=TASKS,
        tokenizer=default_tokenizer({"source": "tiny"}),
    )
    with (Path(folder) / "losses.jsonl").open("a", encoding="utf-8") as file:

        def on_log(step, logs):
            if "loss" in logs:
                file.write(json.dumps([step, logs["loss"]]) + "\n")
                file.flush()

        def on_step(step, total, loss):
            if step == options.get("kill_at"):
                os.kill(os.getpid(), signal.SIGKILL)
            if step == options.get("stop_at"):
                raise KeyboardInterrupt

        measured = train(
            model,
            processor,
            QueryDataset(records, list(TASKS), processor),
            TrainingConfig(**{**TRAINING, **options.get("training", {})}),
            output=folder,
            checkpoints=Checkpoints(**{"report_to": [], **options.get("checkpoints", {})}),
            on_log=on_log,
            on_step=on_step,
        )
    return model, measured


@contextlib.contextmanager
def kept_gradients():
    """Record the gradients of every optimizer step, by step and parameter."""
    kept = {}
    step = itertools.count()

    def keep(optimizer, arguments, options):
        number = next(step)
        parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        for index, gradient in enumerate(parameter.grad for parameter in parameters):
            if gradient is not None:
                whole = gradient.full_tensor() if hasattr(gradient, "full_tensor") else gradient
                kept[f"{number}.{index}"] = whole.detach().clone()

    handle = register_optimizer_step_pre_hook(keep)
    try:
        yield kept
    finally:
        handle.remove()


def shard_on_cpu():
    """Make accelerate use FSDP with several processes on a CPU, which it supports on accelerators only."""
    from accelerate import DistributedType
    from accelerate.state import AcceleratorState

    original = AcceleratorState.__init__

    def initialize(self, *arguments, fsdp_plugin=None, **options):
        original(self, *arguments, fsdp_plugin=fsdp_plugin, **options)
        if fsdp_plugin is not None:
            self.fsdp_plugin = fsdp_plugin
        if "fsdp_plugin" in self.__dict__:
            self.distributed_type = DistributedType.FSDP

    AcceleratorState.__init__ = initialize


def main():
    """Run the options of the command line."""
    torch.set_num_threads(1)
    folder, options = Path(sys.argv[1]), json.loads(sys.argv[2])
    folder.mkdir(parents=True, exist_ok=True)
    if options.get("cpu_shards"):
        shard_on_cpu()
    with kept_gradients() as gradients:
        _, measured = run(folder, options)
    if int(os.environ.get("RANK", 0)) == 0:
        save_file(gradients, folder / "gradients.safetensors")
        (folder / "measured.json").write_text(json.dumps(measured), encoding="utf-8")


if __name__ == "__main__":
    main()
