"""What runs when: chosen cells, interrupted grids, plans and their costs, trackers."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from grid_helpers import cells_in_process, lines_of, write_plugin

from umie.experiments import load
from umie.experiments.engines.inline import InlineEngine
from umie.experiments.estimate import CALIBRATION, Cost, estimate, known_costs, shape_of, write_calibration
from umie.experiments.expand import plan, read_grid
from umie.experiments.grid_file import GRID_FILE, read_grid_file
from umie.experiments.grid_run import Selection
from umie.experiments.prepare_data import prepare_corpus

TINY = {
    "data": {"format": "synthetic", "train": 12, "dev": 6, "test": 6},
    "tasks": ["mner"],
    "decoder": {"name": "span"},
    "warm_start": ...,
    "evaluation": ...,
    "training": {"max_steps": 2, "batch_size": 4},
}


@pytest.fixture
def ablate(grid_file, umie, tmp_path):
    """Run the command on a tiny grid, with its cells in this process: ``ablate("--limit", 1, fusion=[...])``."""

    def run(*arguments, **changes):
        path = grid_file(**TINY | changes)
        with cells_in_process():
            return umie("ablate", path, "--output", tmp_path / "run", *arguments)

    return run


def ran(output):
    return [(line["variant"], line["seed"]) for line in lines_of(output)]


def states(out):
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in out.splitlines() if line.startswith("│")]
    return [(variant, int(seed), state) for _, variant, seed, state in rows]


def test_chosen_cells_run_and_the_others_later(ablate, tmp_path):
    output, fusion = tmp_path / "run", ["gated", "text_only"]
    code, out, err = ablate("--seeds", "0-1", "--only", "fusion=text_only", "--limit", 1, fusion=fusion)
    assert code == 0
    assert ran(output) == [("text_only", 0)]
    assert "running 1 of 4 cells\n" in err
    assert "umie: 3 of 4 cells did not run: they were not chosen; run the grid without --only, --only-failed and" in err
    assert "## Not run yet (3; run the grid again to go on)\n\n- gated, seed 0: not run\n" in out
    assert "crash" not in (out + err).casefold()
    assert {cell.seed for cell in read_grid_file(output).cells} == {0, 1}

    code, out, err = ablate("--plan", "--seeds", "0-1", "--only", "seed=1", fusion=fusion)
    assert code == 0
    assert states(out) == [
        ("gated", 0, "not chosen"), ("gated", 1, "to run"), ("text_only", 0, "ok"), ("text_only", 1, "to run"),
    ]  # fmt: skip
    code, _, err = ablate("--seeds", "0,1", "--only", "fusion=text_only", "--only", "seed=0", fusion=fusion)
    assert (code, len(lines_of(output))) == (0, 1)
    assert "umie: all chosen cells already had results; none was run\n" in err


def test_results_of_other_settings_are_kept_and_mentioned(ablate, umie, tmp_path):
    assert "has results of" not in ablate(fusion=["text_only"])[2]
    for arguments in ((), ("--plan",)):
        code, _, err = ablate("--set", "training.max_steps=1", *arguments, fusion=["text_only"])
        assert code == 0
        note = "run also has results of 1 other cell (other options, data or seeds): they are kept, but the table"
        assert note in err
        assert arguments or err.index(note) < err.index("running 1 of 1 cells")  # in time to choose another directory
    assert len(ran(tmp_path / "run")) == 2
    assert load(tmp_path / "run").others == 1
    assert "The directory also has results of 1 other cell (other options" in umie("grid", "show", tmp_path / "run")[1]


def test_only_failed_runs_what_crashed(ablate, tmp_path):
    output, fixed = tmp_path / "run", tmp_path / "fixed"
    plugin = write_plugin(tmp_path, "raises", f"if not os.path.exists({str(fixed)!r}): raise RuntimeError('no luck')")
    changes = {"plugins": [plugin], "fusion": ["raises", "text_only"]}
    code, _, err = ablate("--only", "fusion=raises", **changes)
    assert (code, ran(output)) == (1, [("raises", 0)])
    assert "umie: 1 of 2 cells failed" in err
    fixed.touch()
    code, out, _ = ablate("--plan", "--only-failed", **changes)
    assert states(out) == [("raises", 0, "failed"), ("text_only", 0, "not chosen")]
    assert "to run: 1 of 2 cells, 1 at a time" in out
    assert ablate("--only-failed", **changes)[0] == 0
    assert ran(output) == [("raises", 0)] * 2
    code, _, err = ablate("--only-failed", **changes)
    assert (code, len(lines_of(output))) == (0, 2)
    assert "umie: no chosen cell has failed; none was run" in err


def test_a_crashed_cell_that_is_not_chosen_does_not_fail_the_command(ablate, tmp_path):
    plugin = write_plugin(tmp_path, "raises", "raise RuntimeError('no luck')")
    changes = {"plugins": [plugin], "fusion": ["raises", "text_only"]}
    assert ablate("--only", "fusion=raises", **changes)[0] == 1
    changes["fusion"] = ["text_only", "raises"]
    for choice in (["--limit", 1], ["--only", "fusion=text_only"]):
        code, _, err = ablate(*choice, **changes)
        assert (code, "umie: 1 of 2 cells failed" in err) == (0, True)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--seeds", "4-0"], "the seeds '4-0'"),
        (["--only", "fusion=gatd"], "Unknown option in fusion: 'gatd'. Did you mean 'gated'?"),
        (["--only", "seed=7"], "--only fits no cell (seed 7): list the cells with --plan"),
        (["--limit", "0"], "Invalid value for '--limit'"),
        (["--calibrate"], "--calibrate measures for --plan: use both"),
    ],
)
def test_an_invalid_choice_of_cells_is_one_line(ablate, tmp_path, arguments, expected):
    code, out, err = ablate(*arguments)
    assert (code, out) == (2, "")
    assert err.startswith("umie: ") and err.count("\n") == 1
    assert expected in err
    assert not list(tmp_path.glob("run/cells/*"))


# --- interrupts ------------------------------------------------------------------------------------------------------


def test_an_interrupted_grid_says_so_and_how_to_go_on(ablate, tmp_path):
    plugin = write_plugin(tmp_path, "stops", "if not os.path.exists('go'): raise KeyboardInterrupt")
    changes = {"plugins": [plugin], "fusion": ["text_only", "stops", "gated"]}
    code, out, err = ablate(**changes)
    assert (code, out) == (130, "")
    assert err.splitlines() == [
        "running 3 of 3 cells",
        "umie: interrupted: 1 of 3 cells are finished; run the same command again to go on",
    ]
    assert ran(tmp_path / "run") == [("text_only", 0)]


@pytest.mark.slow
def test_an_interrupt_of_the_terminal_reaches_no_cell(grid_file, tmp_path):
    """The terminal sends it to all processes of the command."""
    started = [tmp_path / f"started{seed}" for seed in (0, 1)]
    body = (
        "import pathlib, time; pathlib.Path(os.environ['STARTED'] + str(__import__('torch').initial_seed())).touch(); "
        "time.sleep(60)"
    )
    path = grid_file(
        **TINY | {"plugins": [write_plugin(tmp_path, "sleeps", body)], "fusion": ["sleeps"], "seeds": [0, 1]}
    )
    command = subprocess.Popen(
        [sys.executable, "-m", "umie", "ablate", str(path), "--output", str(tmp_path / "run")],
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env={**os.environ, "STARTED": str(tmp_path / "started")},
    )
    try:
        for _ in range(1200):
            if all(file.exists() for file in started) or command.poll() is not None:
                break
            time.sleep(0.1)
        os.killpg(command.pid, signal.SIGINT)
        _, err = command.communicate(timeout=30)
    finally:
        command.kill()
    assert command.returncode == 130
    assert err.splitlines() == [
        "running 2 of 2 cells",
        "umie: interrupted: 0 of 2 cells are finished; run the same command again to go on",
    ]
    assert not (tmp_path / "run" / "results.jsonl").exists()


# --- plans -----------------------------------------------------------------------------------------------------------


def test_a_plan_says_what_is_not_known_then_what_was_measured_then_what_it_was(ablate, tmp_path):
    output = tmp_path / "run"
    changes = {"fusion": ["gated", "text_only"], "seeds": [0, 1]}
    code, out, _ = ablate("--plan", **changes)
    assert code == 0
    assert "to run: 4 of 4 cells, 1 at a time\n" in out
    assert "time, memory and disk of 4 cells are not known yet; --plan --calibrate measures a few steps" in out
    assert not output.exists()  # a plan writes nothing

    code, out, _ = ablate("--plan", "--calibrate", **changes)
    assert code == 0
    assert re.search(r"time: about 0:\d\d:\d\d \(0:\d\d:\d\d of work\), measured on a few steps of 2 cells\n", out)
    assert re.search(r"memory: [\d.]+ [MG]B at the same time; disk: [\d.]+ kB\n", out)
    assert "not known" not in out
    assert {path.name for path in output.iterdir()} == {CALIBRATION, ".lock"}
    assert "measured on a few steps of 2 cells" in ablate("--plan", **changes)[1]  # it is kept

    assert ablate("--only", "seed=0", **changes)[0] == 0
    code, out, _ = ablate("--plan", **changes)
    assert "measured on 2 finished cells\n" in out
    for line in lines_of(output):
        assert line["memory"]["host"] > 1e8
        assert line["disk"]["kept"] > 1000
        assert line["seconds"]["start"] >= 0


def test_a_warm_start_is_shared_and_measured(ablate, tmp_path):
    start = {"training": {"max_steps": 2, "batch_size": 4}}
    changes = {"fusion": "text_only", "seeds": [0, 1], "decoder": {"source": "tiny"}, "warm_start": start}
    changes |= {"evaluation": {"generation": {"max_new_tokens": 2}}}
    code, out, _ = ablate("--plan", "--limit", 1, **changes)
    assert code == 0
    assert "shared by 2 cells: warm start of tiny (to do)\n" in out
    assert "time, memory and disk of 1 cell and 1 warm start are not known yet" in out
    code, out, _ = ablate("--plan", "--calibrate", **changes)
    assert "measured on a few steps of 1 cell\n" in out and "not known" not in out
    assert sorted(key[:10] for key in known_costs(tmp_path / "run"))[-1] == "warm start"


def test_a_calibration_that_crashes_is_reported(ablate, tmp_path):
    plugin = write_plugin(tmp_path, "raises", "raise RuntimeError('no luck')")
    code, out, err = ablate("--plan", "--calibrate", plugins=[plugin], fusion=["raises", "text_only"])
    assert code == 0
    assert "time of 1 of them: about" in out
    assert "time, memory and disk of 1 cell are not known yet\n" in out
    assert "umie: warning: could not be measured: a few steps of raises: RuntimeError: no luck\n" in err


@pytest.mark.slow
def test_features_of_a_frozen_encoder_are_shared_and_measured(ablate, tmp_path):
    encoder = {"name": "tiny", "trainable": False, "label": "frozen"}
    changes = {"encoder": encoder, "fusion": ["gated", "concat", "text_only"], "features": {"folder": "kept"}}
    code, out, _ = ablate("--plan", "--calibrate", **changes)
    assert code == 0
    assert "shared by 2 cells: features of frozen (to do)\n" in out
    assert not (tmp_path / "kept").exists()
    ablate("--only", "fusion=gated", **changes)
    assert "shared by 2 cells: features of frozen (done)\n" in ablate("--plan", **changes)[1]
    shutil.rmtree(tmp_path / "kept")  # as if the results were merged from elsewhere
    assert "shared by 2 cells: features of frozen (to do)\n" in ablate("--plan", **changes)[1]


@pytest.fixture
def corpus_of(tmp_path):
    return lambda grid: prepare_corpus(grid.first.data, root=tmp_path, output=tmp_path / "data")


def test_estimates_add_up(grid_file, corpus_of):
    """By hand: two shapes are known, one is not; two workers take the cells in their order."""
    path = grid_file(**TINY | {
        "fusion": ["gated", "text_only", "concat"], "seeds": [0, 1], "training": {"max_steps": 10, "batch_size": 4},
        "encoder": {"name": "tiny", "trainable": False},
    })  # fmt: skip
    grid = read_grid(path)
    corpus = corpus_of(grid)
    cells = plan(grid, corpus.fingerprint)
    shapes = {cell.variant: shape_of(cell.config, corpus.fingerprint) for cell in cells}
    costs = {
        shapes["gated"]: Cost(10, 2, encode_s=7, encoded_bytes=50, memory_bytes=300, kept_bytes=5, num_cells=3),
        shapes["text_only"]: Cost(1, 0.5, memory_bytes=200, device_bytes=9, kept_bytes=4, scratch_bytes=70),
    }
    found = estimate(cells, corpus, costs, 2)
    assert (found.num_cells, found.num_unknown, [cell.variant for cell in found.unknown]) == (6, 2, ["concat"])
    assert found.work_s == 7 + 2 * (10 + 20) + 2 * (1 + 5)
    assert found.wall_s == 30 + 6 + 6  # one worker has 37 s, the other the rest
    assert (found.memory_bytes, found.device_bytes) == (600, 9)
    assert (found.kept_bytes, found.scratch_bytes) == (50 + 2 * 5 + 2 * 4, 140)
    assert (found.num_finished, found.num_calibrated) == (3, 1)
    assert estimate(cells, corpus, costs, 2, is_stored=lambda encoder: True).work_s == found.work_s - 7
    assert estimate(cells, corpus, {}, 2).num_unknown == 6


def test_the_shape_of_a_cell_is_what_its_cost_depends_on(grid_file, corpus_of):
    def shape(**changes):
        grid = read_grid(grid_file(**TINY | changes))
        return shape_of(grid.first, "x")

    before = shape()
    for changes in ({"seeds": [3]}, {"training": {"max_steps": 9, "batch_size": 4, "learning_rate": 0.1}}):
        assert shape(**changes) == before
    for changes in ({"training": {"max_steps": 2, "batch_size": 8}}, {"fusion": "concat"}, {"max_input_tokens": 9}):
        assert shape(**changes) != before


def test_a_damaged_calibration_is_as_none(tmp_path):
    write_calibration(tmp_path, {"a": Cost(1, 2)})
    assert known_costs(tmp_path) == {"a": Cost(1, 2)}
    text = (tmp_path / CALIBRATION).read_text()
    for damaged in (text.replace("2", "3"), text[:40], "null", "{}", json.dumps({"costs": {"a": 3}})):
        (tmp_path / CALIBRATION).write_text(damaged)
        assert known_costs(tmp_path) == {}


def test_a_selection_keeps_the_order_and_the_limit(grid_file):
    cells = plan(read_grid(grid_file(**TINY | {"seeds": [0, 1, 2]})), "")
    done = {cells[0].hash: {"status": "ok"}, cells[3].hash: {"status": "crashed"}}
    assert Selection().of(cells, done) == list(cells[1:])
    assert Selection(limit=2).of(cells, done) == list(cells[1:3])
    assert Selection(only_failed=True).of(cells, done) == [cells[3]]
    assert Selection({"seed": frozenset(["1"])}).of(cells, done) == [cells[1], cells[4]]


def test_the_time_left_comes_from_finished_cells(ablate, run, grid_file, tmp_path):
    path = grid_file(**TINY | {"seeds": [0, 1, 2], "fusion": "text_only"})
    _, recorder = run(path, tmp_path / "run", engine=InlineEngine())
    assert [(tally.finished, tally.total, tally.ran, tally.planned) for tally in recorder.tallies] == [
        (0, 3, 0, 3), (0, 3, 0, 3), (1, 3, 1, 3), (2, 3, 2, 3), (3, 3, 3, 3),
    ]  # fmt: skip
    first, second, *_, last = [tally.left_s for tally in recorder.tallies[1:]]
    assert first is None
    assert 0 < second < 60
    assert last == 0


# --- trackers --------------------------------------------------------------------------------------------------------


def events_in(folder: Path) -> dict[str, list[float]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder)).Reload()
    return {tag: [event.value for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


@pytest.mark.slow
def test_trackers_get_the_training_of_each_cell(ablate, tmp_path, monkeypatch):
    pytest.importorskip("tensorboard")
    monkeypatch.delenv("TENSORBOARD_LOGGING_DIR", raising=False)
    assert ablate(fusion=["gated", "text_only"], checkpoints={"save_steps": 1})[0] == 0
    assert not (tmp_path / "run" / "tensorboard").exists()  # off by default
    before = {line["variant"]: line for line in lines_of(tmp_path / "run")}

    (tmp_path / "run" / "results.jsonl").rename(tmp_path / "before.jsonl")
    for file in tmp_path.glob("run/cells/*/result.json"):
        file.unlink()
    changes = {"fusion": ["gated", "text_only"], "checkpoints": {"save_steps": 1}, "report_to": "tensorboard"}
    assert ablate(**changes)[0] == 0
    lines = {line["variant"]: line for line in lines_of(tmp_path / "run")}
    for variant, line in lines.items():
        assert (line["hash"], line["metrics"]) == (before[variant]["hash"], before[variant]["metrics"])
        found = events_in(tmp_path / "run" / "tensorboard" / f"{variant}-seed0-{line['hash']}")
        assert len(found["train/loss"]) == 2
        assert found["eval/mner_f1"]
    assert "TENSORBOARD_LOGGING_DIR" not in os.environ


def test_trackers_do_not_need_checkpoints(ablate, tmp_path):
    pytest.importorskip("tensorboard")
    assert ablate(fusion="text_only", report_to=["tensorboard"])[0] == 0
    (folder,) = (tmp_path / "run" / "tensorboard").iterdir()
    assert len(events_in(folder)["train/loss"]) == 2


def test_a_tracker_that_is_unknown_or_missing_is_an_error_before_any_cell(ablate, tmp_path):
    for name, expected in (("tensorbord", "report_to: Unknown integration 'tensorbord'. Did you mean 'tensorboard'?"),
                           ("mlflow", "report_to: mlflow is not installed")):  # fmt: skip
        code, _, err = ablate(report_to=name)
        assert (code, expected in err, err.count("\n")) == (2, True, 1)
    assert not (tmp_path / "run" / GRID_FILE).exists()


@pytest.mark.slow
def test_a_plan_says_whose_text_states_are_shared(ablate):
    changes = {"fusion": ["gated", "concat"], "warm_start": ..., "decoder": "span", "tasks": ["mner"]}
    frozen = ("--set", "training.freeze=[text]", "--set", "training.max_steps=1")
    code, out, err = ablate("--plan", "--seeds", "0-1", *frozen, **changes)
    assert code == 0
    assert out.count("shared by 2 cells: text states of span (to do)") == 2  # random weights differ between seeds
    assert "gated: its text encoder has random weights and is frozen (training.freeze)" in " ".join((out + err).split())
    assert ablate("--seeds", "0", *frozen, **changes)[0] == 0
    code, out, _ = ablate("--plan", "--seeds", "0-1", *frozen, **changes)
    assert [out.count(f"text states of span ({state})") for state in ("done", "to do")] == [1, 1]
    for more in (("--set", "instruction=I0"), ("--set", "max_input_tokens=99")):
        code, out, _ = ablate("--plan", "--seeds", "0", *frozen, *more, **changes)
        assert code == 0
        assert "text states of span (to do)" in out
    code, out, _ = ablate("--plan", "--set", "training.max_steps=1", **changes)
    assert "text states" not in out
