"""``umie train`` with torchrun: two processes train, score and save the same model as one."""

import json
import os
import subprocess
import sys

import pytest
import torch

from umie.model import UmieModel

LAUNCHER = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", "-m", "umie"]
START = {"records": 30, "training": {"max_steps": 2, "batch_size": 4}}


@pytest.mark.slow
def test_two_processes_have_the_result_of_one(config_file, umie, tmp_path):
    """Without dropout, because each process has its own masks."""
    path = config_file(fusion={"name": "gated"}, warm_start=START)
    code, _, err = umie("train", path, "--output", tmp_path / "one")
    assert code == 0, err
    done = subprocess.run(
        [*LAUNCHER, "train", str(path), "--output", str(tmp_path / "two")],
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr[-4000:]
    assert done.stdout.count("Best model on **test**") == 1  # only the first process prints
    losses = []
    for name in ("one", "two"):
        history = json.loads((tmp_path / name / "scores.json").read_text())["history"]
        losses.append([entry["loss"] for entry in history if "loss" in entry])
    assert losses[1] == pytest.approx(losses[0], rel=1e-3)
    one, two = (UmieModel.from_pretrained(tmp_path / name / "last").state_dict() for name in ("one", "two"))
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, rtol=1e-2, atol=5e-4)
