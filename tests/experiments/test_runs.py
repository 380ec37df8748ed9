"""``umie train``: runs leave models that load, and resumed runs have the same result."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml
from small_run import SMALL

import umie as library
from umie.experiments.expand import read_run
from umie.experiments.run import run_training
from umie.records import Entity, Record, write_jsonl
from umie.training import last_checkpoint


class Quiet:
    """A display that records, and interrupts the run at a given step."""

    def __init__(self, end_at=None):
        self.notes, self.phases, self.end_at = [], [], end_at

    def phase(self, name, total=None):
        self.phases.append(name)

    def advance(self, done, loss=None):
        if self.phases[-1] == "train" and done == self.end_at:
            raise KeyboardInterrupt

    def note(self, what):
        self.notes.append(what)


def run(path, output, *settings, end_at=None):
    """Run a config."""
    display = Quiet(end_at)
    return run_training(read_run(path, settings), root=path.parent, output=output, progress=display), display


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The config file, the result and the display of an uninterrupted run."""
    folder = tmp_path_factory.mktemp("whole")
    (folder / "config.yaml").write_text(yaml.safe_dump(SMALL))
    return folder / "config.yaml", *run(folder / "config.yaml", folder / "run")


def weights(folder):
    return library.UmieModel.from_pretrained(folder).state_dict()


def test_a_run_leaves_the_best_and_the_last_model_with_their_processors(whole):
    _, result, display = whole
    steps = {entry["step"] for entry in result.history if "eval_mean_f1" in entry}
    assert steps == {2, 4, 6}
    best = result.measured["best_step"]
    assert result.measured["steps"] == 6 and best in steps
    scored = {entry["step"]: entry["eval_mean_f1"] for entry in result.history if "eval_mean_f1" in entry}
    assert result.measured["best"] == max(scored.values()) == scored[best]
    for name, step in (("last", 6), ("best", best)):
        loaded = weights(result.folder / name)
        checkpoint = weights(result.folder / f"checkpoint-{step}")
        assert all(torch.equal(value, checkpoint[key]) for key, value in loaded.items()), name
        processor = library.UmieProcessor.from_pretrained(result.folder / name)
        assert list(processor.task_options) == ["mner", "mre", "med", "meae"]
    assert any("80 training queries (data 100%), 6 steps of 4" in note for note in display.notes)
    assert sum("dev F1 mean" in note for note in display.notes) == 3


def test_the_scores_of_the_best_model_equal_those_of_evaluate(whole):
    from umie.evaluation import evaluate

    _, result, _ = whole
    model = library.UmieModel.from_pretrained(result.folder / "best")
    processor = library.UmieProcessor.from_pretrained(result.folder / "best")
    data = result.corpus.sets["data"]
    for task in ("mner", "mre", "med"):
        own = evaluate(model, processor, data.read("test"), data.built()[task], max_new_tokens=8)
        assert own.scores["f1"] == result.metrics["test"][task]["f1"]
        written = library.records.read_jsonl(result.folder / "predictions" / "test" / f"{task}.jsonl")
        assert len(list(written)) == len(own.predictions)
    assert set(result.metrics) == {"dev", "test"}


def test_an_interrupted_run_has_the_same_result(whole, tmp_path):
    path, result, _ = whole
    with pytest.raises(KeyboardInterrupt):
        run(path, tmp_path / "run", end_at=5)
    assert last_checkpoint(tmp_path / "run").name == "checkpoint-4"
    again, display = run(path, tmp_path / "run")
    assert "resuming from checkpoint-4" in display.notes
    assert [(entry["step"], entry["loss"]) for entry in again.history if "loss" in entry] == [
        (entry["step"], entry["loss"]) for entry in result.history if "loss" in entry
    ]
    expected = weights(result.folder / "last")
    assert all(torch.equal(value, expected[name]) for name, value in weights(again.folder / "last").items())
    assert again.metrics == result.metrics


def test_the_directory_of_another_run_is_rejected(whole):
    path, result, _ = whole
    with pytest.raises(library.UmieError, match="contains a run that differs in training: use another --output"):
        run(path, result.folder, "training.learning_rate=0.5")
    with pytest.raises(library.UmieError, match="differs in parts"):
        run(path, result.folder, "fusion.gate=0.5")
    with pytest.raises(library.UmieError, match="differs in seed"):
        run(path, result.folder, "seed=1")
    with pytest.raises(library.UmieError, match="differs in checkpoints"):
        run(path, result.folder, "checkpoints.metric_for_best_model=mner_f1")
    with pytest.raises(library.UmieError, match="differs in evaluation"):
        run(path, result.folder, "evaluation.constrained=true")


def test_a_damaged_checkpoint_is_passed_over_and_a_damaged_identity_is_an_error(whole, tmp_path):
    path, result, _ = whole
    copied = shutil.copytree(result.folder, tmp_path / "run")
    newest = copied / "checkpoint-6" / "model.safetensors"
    content = bytearray(newest.read_bytes())
    content[-1] ^= 1
    newest.write_bytes(content)
    again, display = run(path, copied)
    assert any("checkpoint-6 is damaged or incomplete, checkpoint-" in note for note in display.notes)
    assert again.metrics == result.metrics
    found, expected = weights(copied / "last"), weights(result.folder / "last")
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    for content in ("null", "[1]", "{}", '{"seed'):
        (copied / "run.json").write_text(content)
        with pytest.raises(library.UmieError, match=r"^[^\n]*run[^\n]*$"):
            run(path, copied)
    (copied / "run.json").unlink()  # perhaps these are the checkpoints of another run
    with pytest.raises(library.UmieError, match=r"contains checkpoint-\d, but no run.json that says of which run"):
        run(path, copied)


def test_a_finished_run_is_not_trained_again(whole):
    path, result, _ = whole
    again, display = run(path, result.folder)
    assert "finished at checkpoint-6: scored again" in display.notes
    assert again.history == result.history and again.metrics == result.metrics
    assert again.measured["steps"] == 6 and again.measured["train_loss"] > 0.1


def test_start_from_keeps_the_options_of_the_variant(config_file, tmp_path):
    first, _ = run(
        config_file(
            max_input_tokens=200,
            visual_embedding={"num_slot_embeddings": 5},
            training={"max_steps": 1, "batch_size": 2},
        ),
        tmp_path / "first",
    )
    path = config_file(fusion=..., start_from=str(first.folder / "best"), training={"max_steps": 1, "batch_size": 2})
    again, display = run(path, tmp_path / "again")
    assert library.UmieProcessor.from_pretrained(again.folder / "best").max_input_tokens == 200
    assert not [note for note in display.notes if "num_slot_embeddings" in note]


def test_a_run_can_start_from_a_trained_variant(whole, config_file, tmp_path):
    _, result, _ = whole
    path = config_file(
        fusion=...,
        start_from=str(result.folder / "last"),
        training={"max_steps": 1, "batch_size": 2, "learning_rate": 1e-9},
    )
    again, _ = run(path, tmp_path / "run")
    processor = library.UmieProcessor.from_pretrained(again.folder / "last")
    assert (processor.max_input_tokens, processor.max_target_tokens) == (256, 128)
    before, after = weights(result.folder / "last"), weights(again.folder / "last")
    assert before.keys() == after.keys()
    assert all(torch.allclose(value, after[name], atol=1e-6) for name, value in before.items())


def test_an_exported_adapter_is_merged_and_also_saved_separately(config_file, tmp_path):
    path = config_file(training={"max_steps": 2, "batch_size": 4, "adapter": {"type": "lora", "r": 2}})
    result, _ = run(path, tmp_path / "run")
    assert not [name for name in weights(result.folder / "best") if "lora" in name]
    assert (result.folder / "best" / "adapter" / "adapter_model.safetensors").is_file()
    assert json.loads((result.folder / "best" / "adapter" / "adapter_config.json").read_text())["r"] == 2


# --- data ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def names(tmp_path):
    """Write JSONL files of tweets about names: ``names(train=4, dev=2)`` returns the key ``data`` of a config."""

    def write(**sizes):
        for split, size in sizes.items():
            records = [
                Record(f"Saw Ann {index} in {split}", id=f"{split}{index}", entities=(Entity("person", (4, 7)),))
                for index in range(size)
            ]
            write_jsonl(tmp_path / f"{split}.jsonl", records)
        return {"format": "jsonl", **{split: f"{split}.jsonl" for split in sizes}}

    return write


def test_a_truncated_target_is_an_error_unless_allowed(config_file, names, tmp_path):
    options = {"data": names(train=4, dev=2), "tasks": ["mner"], "max_target_tokens": 3, "max_input_tokens": 12}
    with pytest.raises(
        library.UmieError, match=r"4 of 4 training targets have more than 3 tokens.*allow_truncated_targets"
    ):
        run(config_file(**options), tmp_path / "run")
    result, display = run(config_file(**options, allow_truncated_targets=True), tmp_path / "allowed")
    assert any("4 of 4 training targets have more than 3 tokens and are cut off" in note for note in display.notes)
    assert any("training inputs have more than 12 tokens" in fact for fact in result.facts)


def test_without_a_dev_split_the_best_model_is_the_last(config_file, names, tmp_path):
    result, display = run(config_file(data=names(train=4), tasks=["mner"]), tmp_path / "run")
    assert any("no data set has a dev split" in note for note in display.notes)
    assert "best_step" not in result.measured and result.metrics == {}
    last = weights(result.folder / "last")
    assert all(torch.equal(value, last[name]) for name, value in weights(result.folder / "best").items())


def test_patience_without_a_dev_split_is_rejected(config_file, names, tmp_path):
    path = config_file(
        data=names(train=4),
        tasks=["mner"],
        checkpoints={"save_steps": 2, "early_stopping_patience": 2, "report_to": []},
    )
    with pytest.raises(library.UmieError, match="patience needs dev scores, and no data set has a dev split"):
        run(path, tmp_path / "run")


def test_a_held_out_set_does_not_select_the_checkpoint(config_file, names, tmp_path):
    one = names(train=6, dev=2)
    sets = {"first": {**one, "tasks": ["mner"]}, "second": {**one, "tasks": ["mner"]}}
    path = config_file(data={"sets": sets}, tasks=["mner"], train_on={"without": "second"})
    result, _ = run(path, tmp_path / "run")
    for entry in result.history:
        if "eval_mean_f1" in entry:
            assert entry["eval_mean_f1"] == entry["eval_first_mner_f1"]
            assert "eval_second_mner_f1" in entry


def test_an_empty_split_and_a_label_missing_in_training_are_reported(config_file, names, tmp_path):
    with pytest.raises(library.UmieError, match="data has no records for 'dev'"):
        run(config_file(data=names(train=4, dev=0), tasks=["mner"]), tmp_path / "empty")
    data = names(train=4, dev=1)
    seen = next(iter(library.records.read_jsonl(tmp_path / "dev.jsonl")))
    write_jsonl(tmp_path / "dev.jsonl", [replace(seen, entities=(Entity("ship", (4, 7)),))])
    with pytest.raises(library.UmieError, match=r"record 'dev0': .*'ship'"):
        run(config_file(data=data, tasks=["mner"]), tmp_path / "unseen")


def test_several_sets_are_scored_separately_and_drawn_in_their_shares(config_file, names, tmp_path):
    one = names(train=6, dev=2)
    sets = {"first": {**one, "tasks": ["mner"]}, "second": {**one, "tasks": ["mner"], "weight": 3}}
    path = config_file(data={"sets": sets, "sampling": {"strategy": "equal"}}, tasks=["mner"])
    result, display = run(path, tmp_path / "run")
    assert any("(first 25%, second 75%)" in note for note in display.notes)
    assert set(result.metrics["dev"]) == {"first mner", "second mner"}
    last = [entry for entry in result.history if "eval_mean_f1" in entry][-1]
    assert {"eval_first_mner_f1", "eval_second_mner_f1"} <= set(last)


@pytest.mark.slow
def test_the_dev_line_says_over_which_tasks_the_mean_is(config_file, tmp_path, umie):
    path = config_file(mean_over=["mre", "med"])
    code, out, err = umie("train", path, "--output", tmp_path / "run")
    assert code == 0, err
    (line,) = [line for line in err.splitlines() if line.startswith("step 2 of")]
    assert re.search(r": dev F1 mean of mre, med \d\.\d{3}, mner \d\.\d{3}, mre ", line)
    assert "mean_f1 (of mre, med) 0." in " ".join(out.split())


def test_the_metric_of_the_checkpoints_must_be_scored(config_file, tmp_path):
    path = config_file(checkpoints={"save_steps": 2, "metric_for_best_model": "mnerr_f1", "report_to": []})
    with pytest.raises(library.UmieError, match=r"metric_for_best_model 'mnerr_f1'. Did you mean 'mner_f1'\?"):
        run(path, tmp_path / "run")


# --- the command -----------------------------------------------------------------------------------------------------


def test_the_command_prints_and_writes_a_report(config_file, umie, tmp_path):
    path = config_file(training={"max_steps": 2, "batch_size": 4})
    output = tmp_path / "run"
    code, out, err = umie("train", path, "--output", output, "--set", "seed=5")
    assert code == 0, err
    assert "Best model on **test**" in out and "| MNER" in out and "seed 5" in out
    assert (output / "report.md").read_text() in out
    assert {path.name for path in output.glob("*.png")} == {"curves.png", "gates.png"}
    numbers = json.loads((output / "scores.json").read_text())
    assert numbers["measured"]["steps"] == 2 and numbers["metrics"]["test"]["mner"]["gold"] > 0
    assert "train ..." in err


def test_the_plan_runs_nothing(config_file, umie, tmp_path):
    path = config_file(preset="paper-base", training=..., encoder="tiny", fusion="gated")
    code, out, err = umie("train", path, "--plan", "--output", tmp_path / "run")
    assert (code, "missing: decoder 'google/flan-t5-base'" in " ".join(err.split())) == (2, True)
    assert umie("train", config_file(), "--plan", "--output", tmp_path / "run")[0] == 0
    assert "training.num_train_epochs" in out and "40" in out and "google/flan-t5-base" in out
    assert not (tmp_path / "run").exists()


def test_an_output_that_is_a_file_is_reported_in_one_line(config_file, umie, tmp_path):
    taken = tmp_path / "notes.txt"
    taken.write_text("mine")
    for output in (taken, taken / "below" / "it"):
        for more in ((), ("--plan",)):
            code, out, err = umie("train", config_file(), "--output", output, *more)
            assert (code, out, err) == (2, "", f"umie: {taken}: is a file: use a directory for --output\n")
    assert taken.read_text() == "mine"


def test_bad_input_is_reported_in_one_line(config_file, umie, tmp_path):
    code, _, err = umie("train", config_file(training={"max_steps": 0}))
    assert code == 2 and err.startswith("umie: ") and "training.max_steps is 0" in err and len(err.splitlines()) == 1
    code, _, err = umie("train", config_file(), "--data-root", Path(tmp_path) / "none")
    assert (code, "not a directory" in err) == (2, True)
