"""Several processes: data parallelism has the gradients of one process; FSDP saves a model that one process loads."""

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
    """Return options for child.py. Clipping is off, because it would hide a wrong scale of the gradients."""
    return {
        "dropout": 0.0,
        "training": {"max_steps": 3, "batch_size": 8, "max_grad_norm": 1e9, **(training or {})},
        **options,
    }


@pytest.fixture(scope="module")
def single(tmp_path_factory):
    """The gradients and the model of a single process."""
    with child.kept_gradients() as gradients:
        model, _ = child.run(tmp_path_factory.mktemp("single"), settings())
    return gradients, model


def assert_close(gradients, expected):
    """Assert that all gradients of all steps match up to rounding."""
    assert gradients.keys() == expected.keys()
    for name, value in expected.items():
        share = 2e-5 if name.startswith("0.") else 2e-4  # Adam amplifies rounding errors
        torch.testing.assert_close(gradients[name], value, rtol=1e-3, atol=share * float(value.abs().max()) + 1e-9)


@pytest.mark.slow
def test_two_processes_have_the_gradients_of_one(single, tmp_path):
    assert_close(start(tmp_path), single[0])


def test_micro_batches_have_the_gradients_of_the_whole_batch(single, tmp_path):
    with child.kept_gradients() as gradients:
        child.run(tmp_path, settings(training={"gradient_accumulation_steps": 4}))
    assert_close(gradients, single[0])


@pytest.mark.slow
def test_fsdp_has_the_same_gradients_and_saves_a_model_that_one_process_loads(single, tmp_path):
    gradients = start(tmp_path, cpu_shards=True, training={"fsdp": True}, checkpoints={"save_steps": 3})
    assert_close(gradients, single[0])
    loaded = UmieModel.from_pretrained(tmp_path / "checkpoint-3").state_dict()
    for name, value in single[1].state_dict().items():  # Adam amplifies rounding errors of gradients close to 0
        torch.testing.assert_close(loaded[name], value, rtol=1e-3, atol=2e-4)


def test_an_indivisible_batch_and_fsdp_without_gpus_are_rejected(tmp_path):
    with pytest.raises(UmieError, match="batch_size is 8: use a multiple of 3"):
        child.run(tmp_path, settings(training={"gradient_accumulation_steps": 3}))
    with pytest.raises(UmieError, match="fsdp is enabled, but accelerate is not sharding"):
        child.run(tmp_path, settings(training={"fsdp": True}))
