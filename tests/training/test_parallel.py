"""Several processes: data parallel gives the gradients of one process; FSDP saves what one process loads."""

import json
import subprocess
import sys

import child
import pytest
import torch
from safetensors.torch import load_file

from umie.errors import UmieError
from umie.model import UmieModel

LAUNCHER = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]


def start(folder, **options):
    """Run child.py in two processes; return the gradients by step and parameter."""
    done = subprocess.run(
        [*LAUNCHER, child.__file__, str(folder), json.dumps(settings(**options))],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return load_file(folder / "gradients.safetensors")


def settings(training=None, **options):
    """Return what child.py is asked for; gradients are kept after clipping, which would hide a wrong scale."""
    return {
        "dropout": 0.0,
        "training": {"max_steps": 3, "batch_size": 8, "max_grad_norm": 1e9, **(training or {})},
        **options,
    }


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """The gradients of one process, and its model."""
    with child.kept_gradients() as gradients:
        model, _ = child.run(tmp_path_factory.mktemp("alone"), settings())
    return gradients, model


def assert_alike(gradients, expected):
    """Each parameter's gradient is that of one process, up to rounding, from the first step to the last."""
    assert gradients.keys() == expected.keys()
    for name, value in expected.items():
        share = 2e-5 if name.startswith("0.") else 2e-4  # Adam magnifies rounding from step to step
        torch.testing.assert_close(gradients[name], value, rtol=1e-3, atol=share * float(value.abs().max()) + 1e-9)


@pytest.mark.slow
def test_two_processes_take_the_gradients_of_one_with_the_doubled_batch(alone, tmp_path):
    assert_alike(start(tmp_path), alone[0])


def test_micro_batches_take_the_gradients_of_the_whole_batch(alone, tmp_path):
    with child.kept_gradients() as gradients:
        child.run(tmp_path, settings(training={"gradient_accumulation_steps": 4}))
    assert_alike(gradients, alone[0])


@pytest.mark.slow
def test_fsdp_takes_the_same_gradients_and_saves_a_model_that_one_process_loads(alone, tmp_path):
    gradients = start(tmp_path, cpu_shards=True, training={"fsdp": True}, checkpoints={"save_steps": 3})
    assert_alike(gradients, alone[0])
    loaded = UmieModel.from_pretrained(tmp_path / "checkpoint-3").state_dict()
    for name, value in alone[1].state_dict().items():  # Adam magnifies rounding where a gradient is about 0
        torch.testing.assert_close(loaded[name], value, rtol=1e-3, atol=2e-4)


def test_a_batch_that_cannot_be_shared_and_fsdp_without_gpus_are_refused(tmp_path):
    with pytest.raises(UmieError, match=r"batch_size is 8: it cannot be shared by 3 .* give a multiple of 3"):
        child.run(tmp_path, settings(training={"gradient_accumulation_steps": 3}))
    with pytest.raises(UmieError, match="fsdp is set, and accelerate does not shard here"):
        child.run(tmp_path, settings(training={"fsdp": True}))
