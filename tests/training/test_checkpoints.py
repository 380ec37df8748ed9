"""Checkpoints: killed runs resume bit for bit, the best and the newest are kept, and errors lose nothing."""

import contextlib
import json
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import child
import pytest
import torch
from safetensors.torch import load_file

from umie.checkpoints import MANIFEST
from umie.errors import UmieError
from umie.evaluation.queries import QueryDataset
from umie.model import UmieModel
from umie.processor import UmieProcessor
from umie.training import Checkpoints, TrainingConfig, last_checkpoint, train
from umie.training.trainer import SAVING


def losses(folder):
    """Return the loss of each step; a step that ran twice must have the same loss both times."""
    found = {}
    for line in (folder / "losses.jsonl").read_text().splitlines():
        step, loss = json.loads(line)
        assert found.setdefault(step, loss) == loss
    return found


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    """The folder, the model and the result of an uninterrupted run."""
    folder = tmp_path_factory.mktemp("unbroken")
    model, measured = child.run(folder, {"checkpoints": {"save_steps": 3, "save_total_limit": 100}})
    return folder, model, measured


@pytest.mark.slow
def test_a_run_killed_at_a_random_step_resumes_bit_for_bit(unbroken, tmp_path):
    folder, model, _ = unbroken
    step = random.randint(4, 13)
    options = {"checkpoints": {"save_steps": 3, "save_total_limit": 100}}
    command = [sys.executable, str(Path(child.__file__)), str(tmp_path), json.dumps(options | {"kill_at": step})]
    killed = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert killed.returncode == -9, killed.stderr
    assert max(losses(tmp_path)) <= step
    saved = last_checkpoint(tmp_path)
    assert saved is not None and saved.name == f"checkpoint-{(step - 1) // 3 * 3}"
    again, measured = child.run(tmp_path, options)
    assert measured["steps"] == 14
    assert losses(tmp_path) == losses(folder), f"killed after step {step}"
    for name, value in model.state_dict().items():
        assert torch.equal(value, again.state_dict()[name]), f"{name}, killed after step {step}"


def test_every_checkpoint_loads_as_a_model_and_contains_no_pickle(unbroken):
    folder, model, _ = unbroken
    assert sorted(path.name for path in folder.glob("checkpoint-*")) == [
        "checkpoint-12", "checkpoint-14", "checkpoint-3", "checkpoint-6", "checkpoint-9",
    ]  # fmt: skip
    loaded = UmieModel.from_pretrained(folder / "checkpoint-14")
    assert all(torch.equal(value, loaded.state_dict()[name]) for name, value in model.state_dict().items())
    assert UmieProcessor.from_pretrained(folder / "checkpoint-14").task_options.keys() == child.TASKS.keys()
    assert not list(folder.rglob("training_args.bin"))


def flip_a_bit(file):
    content = bytearray(file.read_bytes())
    content[random.randrange(len(content))] ^= 1 << random.randrange(8)
    file.write_bytes(content)


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(Path.unlink, id="gone"),
        pytest.param(lambda file: file.write_bytes(file.read_bytes()[: file.stat().st_size // 2]), id="half"),
        pytest.param(lambda file: file.write_text("null"), id="null"),
        pytest.param(flip_a_bit, id="one bit"),
    ],
)
def test_damaged_checkpoints_are_passed_over_with_a_line(unbroken, tmp_path, damage):
    folder, _, _ = unbroken
    older, newer = (tmp_path / f"checkpoint-{step}" for step in (3, 6))
    shutil.copytree(folder / older.name, older)
    names = [path.relative_to(folder / newer.name) for path in (folder / newer.name).rglob("*") if path.is_file()]
    assert {"model.safetensors", "optimizer.pt", "umie_processor.json", MANIFEST} <= set(map(str, names))
    for name in names:
        shutil.rmtree(newer, ignore_errors=True)
        shutil.copytree(folder / newer.name, newer)
        lines = []
        assert last_checkpoint(tmp_path, lines.append) == newer
        damage(newer / name)
        found = last_checkpoint(tmp_path, lines.append)
        if found == newer:  # a bit of the manifest that says nothing, such as a space
            assert str(name) == MANIFEST
            continue
        assert found == older
        assert len(lines) == len("\n".join(lines).splitlines()) == 1
        assert "checkpoint-6 is damaged or incomplete, checkpoint-3 is used" in lines[0]
        assert f"remove {MANIFEST}" not in lines[0]
    assert last_checkpoint(tmp_path / "nothing") is None


@pytest.mark.parametrize("has_manifest", [False, True])
def test_checkpoints_of_which_none_can_be_used_stop_training(unbroken, tmp_path, has_manifest):
    """Without their manifests they may be whole; to start again would silently lose their work."""
    folder, _, _ = unbroken
    for step in (3, 6):
        copied = shutil.copytree(folder / f"checkpoint-{step}", tmp_path / f"checkpoint-{step}")
        if not has_manifest:
            (copied / MANIFEST).unlink()
    if has_manifest:
        flip_a_bit(tmp_path / "checkpoint-3" / "model.safetensors")
        (tmp_path / "checkpoint-6" / "optimizer.pt").unlink()
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    with pytest.raises(UmieError) as caught:
        child.run(tmp_path, {"checkpoints": {"save_steps": 3}})
    message = str(caught.value)
    damaged = ("is not the file that was saved", "optimizer.pt: is missing")
    reasons = damaged if has_manifest else (f"no {MANIFEST}",) * 2
    for step, reason in zip((3, 6), reasons, strict=True):
        assert re.search(f"checkpoint-{step}: .*{reason}", message)
    assert "delete the folder or use another output" in message
    assert f"remove {MANIFEST}" not in message
    assert "\n" not in message
    assert {path: path.stat().st_mtime_ns for path in before if path.exists()} == before


def test_an_interrupted_first_save_does_not_stop_training(unbroken, tmp_path):
    """There is no work in it to lose."""
    folder, _, _ = unbroken
    copied = shutil.copytree(folder / "checkpoint-3", tmp_path / "checkpoint-3")
    assert not (copied / SAVING).exists()
    (copied / MANIFEST).unlink()
    (copied / SAVING).touch()
    with pytest.warns(UserWarning, match="checkpoint-3 is damaged or incomplete, there is no older one, so training"):
        assert last_checkpoint(tmp_path) is None


@contextlib.contextmanager
def full_disk(num_bytes):
    """Limit the size of files, to simulate a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)


@pytest.mark.slow
@pytest.mark.parametrize("share", [pytest.param(0.5, id="weights"), pytest.param(1.2, id="optimizer")])
def test_a_full_disk_is_reported_and_earlier_checkpoints_are_kept(unbroken, tmp_path, share):
    folder, _, _ = unbroken
    options = {"checkpoints": {"save_steps": 3}}
    with pytest.raises(KeyboardInterrupt):
        child.run(tmp_path, options | {"stop_at": 5})
    size = (folder / "checkpoint-3" / "model.safetensors").stat().st_size
    with full_disk(int(share * size)), pytest.raises(UmieError) as caught:
        child.run(tmp_path, options)
    assert "checkpoint-6 cannot be written" in str(caught.value)
    assert "checkpoint-3 is kept" in str(caught.value)
    assert [path.name for path in tmp_path.glob("checkpoint-*")] == ["checkpoint-3"]
    child.run(tmp_path, options)
    assert losses(tmp_path) == losses(folder)


@pytest.fixture
def small(variant, embedded_records):
    """A fresh variant and its queries."""
    model, processor = variant()
    return model, processor, QueryDataset(embedded_records[:6], ["mner", "mre"], processor)


def test_the_best_and_the_newest_checkpoint_are_kept_and_patience_stops_the_run(small, tmp_path):
    model, processor, queries = small
    scores = iter([0.2, 0.6, 0.5, 0.6, 0.4, 0.9])
    logged = []
    measured = train(
        model,
        processor,
        queries,
        TrainingConfig(max_steps=12, batch_size=2, learning_rate=1e-3),
        output=tmp_path,
        checkpoints=Checkpoints(
            save_steps=2,
            save_total_limit=1,
            early_stopping_patience=3,
            metric_for_best_model="mner_f1",
            report_to=(),
        ),
        dev=lambda model: {"mner_f1": next(scores)},
        on_log=lambda step, logs: logged.append((step, logs.get("eval_mner_f1"))),
    )
    assert (measured["best_step"], measured["best"], measured["steps"]) == (4, 0.6, 10)
    assert [pair for pair in logged if pair[1] is not None] == [(2, 0.2), (4, 0.6), (6, 0.5), (8, 0.6), (10, 0.4)]
    assert {path.name for path in tmp_path.glob("checkpoint-*")} == {"checkpoint-4", "checkpoint-10"}


def test_a_resumed_run_keeps_the_count_of_patience_and_a_stopped_run_stays_stopped(variant, embedded_records, tmp_path):
    def start(scores, end_at=None):
        model, processor = variant()
        queries = QueryDataset(embedded_records[:6], ["mner", "mre"], processor)
        given = iter(scores)

        def on_step(step, total, loss):
            if step == end_at:
                raise KeyboardInterrupt

        return train(
            model,
            processor,
            queries,
            TrainingConfig(max_steps=20, batch_size=2, learning_rate=1e-3),
            output=tmp_path,
            checkpoints=Checkpoints(save_steps=2, early_stopping_patience=3, report_to=()),
            dev=lambda model: {"mean_f1": next(given)},
            on_step=on_step,
        ), model

    with pytest.raises(KeyboardInterrupt):
        start([0.5, 0.4, 0.3], end_at=7)
    measured, model = start([0.2])  # the third without improvement
    assert (measured["steps"], measured["best_step"], measured["best"]) == (8, 2, 0.5)
    again, loaded = start([])
    assert again == measured
    assert all(torch.equal(value, loaded.state_dict()[name]) for name, value in model.state_dict().items())
    assert measured["train_loss"] > 0.1


def test_an_unknown_reporter_or_backend_is_reported(small, tmp_path):
    model, processor, queries = small
    with pytest.raises(UmieError, match="training: .*nowhere"):
        reported = Checkpoints(report_to=("nowhere",))
        train(model, processor, queries, TrainingConfig(max_steps=1), output=tmp_path, checkpoints=reported)
    with pytest.raises(UmieError, match=r"Unknown torch.compile backend 'inductr'. Did you mean 'inductor'\?"):
        train(model, processor, queries, TrainingConfig(max_steps=1, torch_compile="inductr"))


def test_patience_requires_an_output_and_the_metric_a_dev_score(small, tmp_path):
    model, processor, queries = small
    with pytest.raises(UmieError, match="early_stopping_patience needs a directory for the best checkpoint"):
        checkpoints = Checkpoints(early_stopping_patience=1)
        train(model, processor, queries, TrainingConfig(max_steps=1), checkpoints=checkpoints)
    with pytest.raises(UmieError, match=r"Unknown metric 'mean_f1'. .*Choices: f1"):
        train(
            model,
            processor,
            queries,
            TrainingConfig(max_steps=1, batch_size=2),
            output=tmp_path,
            dev=lambda model: {"f1": 1.0},
        )


def test_scores_and_losses_go_to_tensorboard(small, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    model, processor, queries = small
    train(
        model,
        processor,
        queries,
        TrainingConfig(max_steps=4, batch_size=2),
        output=tmp_path,
        checkpoints=Checkpoints(save_steps=2),
        dev=lambda model: {"mean_f1": 0.25},
    )
    (folder,) = {path.parent for path in tmp_path.rglob("events.out.tfevents.*")}
    events = EventAccumulator(str(folder)).Reload()
    assert [(event.step, event.value) for event in events.Scalars("eval/mean_f1")] == [(2, 0.25), (4, 0.25)]
    assert [event.step for event in events.Scalars("train/loss")] == [1, 2, 3, 4]


def test_a_nan_loss_stops_the_run_before_the_weights_change(small, tmp_path):
    model, processor, queries = small
    before = {}

    def corrupt(step, total, loss):
        if step == 3:
            before.update({name: value.clone() for name, value in model.state_dict().items()})
            model.fusion.norm.weight.data[0] = float("nan")

    with pytest.raises(
        UmieError, match=r"the loss is nan at step 4; .* lower learning_rate, or check the records of this step: \w"
    ):
        train(
            model,
            processor,
            queries,
            TrainingConfig(max_steps=6, batch_size=2),
            output=tmp_path,
            checkpoints=Checkpoints(save_steps=2, report_to=()),
            on_step=corrupt,
        )
    saved = load_file(last_checkpoint(tmp_path) / "model.safetensors")
    assert last_checkpoint(tmp_path).name == "checkpoint-2"
    assert all(bool(value.isfinite().all()) for value in saved.values())
    name = "fusion.attention.query.weight" if "fusion.attention.query.weight" in before else next(iter(before))
    assert torch.equal(model.state_dict()[name], before[name])
