"""`umie bench` and `umie bench compare`: output, files, and errors."""

import inspect
import json
from pathlib import Path

import pytest

from umie.bench import measure, shapes
from umie.bench.ratios import ROUNDS
from umie.bench.results import Results
from umie.bench.run import Plan
from umie.cli.bench import bench
from umie.fusion import registry as fusions
from umie.fusion.kernels import registry as kernels
from umie.fusion.kernels.sdpa import Sdpa

OWN_FUSION = Path(__file__).resolve().parents[2] / "examples" / "own_fusion.py"
SHAPE = ("--sizes", "tiny", "--batch-sizes", "2", "--tokens", "5", "--slots", "3")
SLICE = (*SHAPE, "--rounds", "2", "--threads", "1", "--device", "cpu")


@pytest.fixture(autouse=True)
def tiny(monkeypatch, tmp_path):
    monkeypatch.setitem(shapes.SIZES, "tiny", (32, 2, 16, 64))
    monkeypatch.setattr(measure, "MIN_S", 0.0)
    monkeypatch.setattr(measure, "WARM_UP_S", 0.0)
    monkeypatch.chdir(tmp_path)


def test_results_are_printed_and_written_and_never_overwritten(umie, tmp_path):
    code, out, err = umie("bench", *SLICE, "--blocks", "gate,concat", "--backends", "sdpa")
    assert code == 0, err
    for word in ("concat", "bare products", "plain gate (fastest peer)", "of limit", "of peer", "MiB"):
        assert word in out
    folder = tmp_path / "runs/bench"
    assert sorted(path.suffix for path in folder.iterdir()) == [".json", ".md", ".png"]
    (path,) = folder.glob("*_cpu_1threads_float32.json")
    found = Results.read(path)
    assert found.environment["threads"] == 1
    assert {row.block for row in found.rows} == {"gate", "concat"}
    assert found.options["command"].startswith("umie bench --sizes tiny")
    command = ("bench", *SLICE, "--blocks", "text_only", "--no-peers", "--no-memory", "--directions", "forward")
    assert umie(*command)[0] == 0
    assert len(list(folder.glob("*.json"))) == 2
    (tmp_path / "mine.json").write_text("{}")
    code, _, err = umie(*command, "--output", "mine")
    assert (code, err.count("\n")) == (2, 1)
    assert "mine.json already exists" in err
    assert (tmp_path / "mine.json").read_text() == "{}"


def test_the_fusion_of_a_plugin_is_timed_next_to_the_others(umie, tmp_path, monkeypatch):
    monkeypatch.setattr(fusions, "_parts", dict(fusions._parts))
    command = ("bench", *SLICE, "--blocks", "concat", "--plugin", OWN_FUSION, "--directions", "forward")
    code, out, err = umie(*command, "--no-memory", "--output", "found")
    assert code == 0, err
    assert "mean_add" in out
    rows = Results.read(tmp_path / "found.json").rows
    assert [(row.block, row.status) for row in rows] == [("concat", "done"), ("mean_add", "done")]
    code, _, err = umie("bench", "--plugin", "absent.py", "--dry-run")
    assert (code, err.count("\n")) == (2, 1)
    assert "absent.py" in err


def test_a_wrong_kernel_is_reported_with_exit_code_1(umie, monkeypatch, tmp_path):
    class Off(Sdpa):
        def attend(self, q, k, v, **options):
            return 1.03 * super().attend(q, k, v, **options)

    monkeypatch.setitem(kernels._parts, "off", Off)
    command = ("bench", *SLICE, "--blocks", "paper", "--backends", "off,sdpa", "--no-peers", "--no-memory")
    code, out, err = umie(*command, "--output", "found")
    assert code == 1
    assert "paper umie off" in err
    assert "wrong: error" in out
    statuses = {row["name"]: row["status"] for row in json.loads((tmp_path / "found.json").read_text())["rows"]}
    assert statuses == {"umie off": "wrong", "umie sdpa": "done"}


def test_a_dry_run_lists_everything_and_runs_nothing(umie, tmp_path):
    options = ("--sizes", "xl", "--batch-sizes", "64", "--tokens", "16,32", "--blocks", "all", "--dry-run")
    code, out, _ = umie("bench", *options)
    assert code == 0
    assert "released: umie sdpa (forward, forward+backward): would run" in out
    assert "text_only: umie" in out
    assert {line.split()[2] for line in out.splitlines() if line.startswith("xl")} == {"T=16", "T=32"}
    assert not (tmp_path / "runs").exists()


def test_an_absent_device(umie):
    code, out, err = umie("bench", "--device", "cuda:99", "--blocks", "paper", "--compile", "--dry-run")
    assert code == 0
    assert "cuda:99 is not available" in err
    assert "umie sdpa, graph" in out
    code, _, err = umie("bench", "--device", "cuda:99", "--blocks", "paper")
    assert (code, err.count("\n")) == (2, 1)
    assert "--device cuda:99: " in err


def test_explain_reports_the_backend_that_auto_chooses(umie):
    code, out, _ = umie("bench", "--explain", "--device", "cpu", "--tokens", "16,512", "--directions", "forward")
    assert code == 0
    assert "T=16 V=37 D=768 H=12 dense float32 forward on cpu: auto chooses sdpa" in out
    assert "T=512" in out


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--blocks", "relesed"], "Unknown block 'relesed'. Did you mean 'released'?"),
        (["--backends", "sdp"], "Unknown attention backend 'sdp'. Did you mean 'sdpa'?"),
        (["--sizes", "bas"], "Unknown size 'bas'. Did you mean 'base'?"),
        (["--dtypes", "float"], "Unknown dtype 'float'"),
        (["--directions", ""], "the list of directions is empty"),
        (["--batch-sizes", "0"], "--batch-sizes is '0'"),
        (["--tokens", "8,x"], "--tokens is '8,x'"),
        (["--device", "gpu"], "--device gpu: "),
        (["--lengths", "none.jsonl"], "none.jsonl: cannot read"),
        (["compare", "none.json", "none.json"], "none.json: cannot read"),
    ],
)
def test_bad_input_is_one_line(umie, options, expected):
    code, _, err = umie("bench", *options)
    assert (code, err.count("\n")) == (2, 1)
    assert expected in err


@pytest.fixture
def measured(tmp_path):
    """A result of one block in both directions."""
    row = {
        "shape": "tiny B=2 T=5",
        "widths": {"size": "tiny", "batch": 2, "tokens": 5, "slots": 3, "ragged": False},
        "dtype": "float32",
        "block": "text_only",
        "name": "umie",
        "kind": "ours",
        "status": "done",
        "seconds": [1.0],
    }
    data = {
        "format": 1,
        "environment": {"device": "cpu", "device_name": "A", "threads": 1},
        "options": {},
        "rows": [{**row, "direction": direction} for direction in ("forward", "forward+backward")],
        "complete": True,
    }
    path = tmp_path / "old.json"
    path.write_text(json.dumps(data))
    return path


def scaled(path, to, factor, rounds=7, **environment):
    data = json.loads(path.read_text())
    for row in data["rows"]:
        row["seconds"] = [factor * (1 + 0.01 * (number % 2)) for number in range(rounds)]
    data["environment"] |= environment
    to.write_text(json.dumps(data))
    return to


def test_compare_reports_changes(umie, measured, tmp_path):
    old = scaled(measured, tmp_path / "a.json", 1)
    code, out, _ = umie("bench", "compare", old, old)
    assert (code, "no change" in out) == (0, True)
    code, out, _ = umie("bench", "compare", old, scaled(measured, tmp_path / "b.json", 1.5))
    assert code == 1
    assert "slower: text_only: umie, tiny B=2 T=5" in out
    assert "x 1.50" in out
    assert umie("bench", "compare", old, tmp_path / "b.json", "--tolerance", "0.6")[0] == 0
    assert umie("bench", "compare", tmp_path / "b.json", old)[0] == 0  # faster is not a regression


def test_times_of_too_few_rounds_yield_no_verdict(umie, measured, tmp_path):
    old, new = scaled(measured, tmp_path / "a.json", 1), scaled(measured, tmp_path / "b.json", 1.5, rounds=6)
    code, out, err = umie("bench", "compare", old, new)
    assert code == 0
    assert "slower: text_only: umie" in out
    assert ", too few rounds\n" in out
    assert f"--rounds {ROUNDS}" in err
    data = json.loads(new.read_text())
    data["rows"][0] |= {"status": "wrong", "reason": "wrong: error", "seconds": []}
    new.write_text(json.dumps(data))
    assert umie("bench", "compare", old, new)[0] == 1


def test_the_default_rounds_are_enough_for_a_verdict():
    assert inspect.signature(bench).parameters["rounds"].default == Plan.rounds == ROUNDS == 7


def test_compare_refuses_other_machines(umie, measured, tmp_path):
    other = scaled(measured, tmp_path / "b.json", 1, threads=7)
    code, _, err = umie("bench", "compare", measured, other)
    assert (code, err.count("\n")) == (2, 1)
    assert "threads was 1, is 7" in err
    code, _, err = umie("bench", "compare", measured, other, "--anyway", "--tolerance", "1e12")
    assert code == 0
    assert "compared anyway" in err


def test_help_has_examples(umie):
    code, out, _ = umie("bench", "--help")
    assert code == 0
    assert "umie bench compare before.json after.json" in out
    assert "--plugin examples/own_fusion.py" in out
    assert "--batch-sizes" in out
