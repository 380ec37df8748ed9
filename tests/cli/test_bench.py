"""`umie bench` and `umie bench compare`: what they print, write and refuse."""

import inspect
import json

import pytest

from umie.bench import measure, shapes
from umie.bench.ratios import ROUNDS
from umie.bench.results import Results
from umie.bench.run import Plan
from umie.cli.bench import bench
from umie.fusion.kernels import registry as kernels
from umie.fusion.kernels.sdpa import Sdpa

SLICE = ("--sizes", "tiny", "--batch", "2", "--tokens", "5", "--slots", "3", "--rounds", "2", "--threads", "1")


@pytest.fixture(autouse=True)
def tiny(monkeypatch, tmp_path):
    monkeypatch.setitem(shapes.SIZES, "tiny", (32, 2, 16, 64))
    monkeypatch.setattr(measure, "LEAST_S", 0.0)
    monkeypatch.setattr(measure, "WARM_UP_S", 0.0)
    monkeypatch.chdir(tmp_path)


def test_a_slice_is_printed_and_written(umie, tmp_path):
    code, out, err = umie("bench", *SLICE, "--blocks", "paper,gate,concat", "--backends", "auto,sdpa")
    assert code == 0, err
    for word in ("paper", "umie sdpa", "bare products", "plain gate", "of limit", "of peer", "MiB", "expected"):
        assert word in out
    files = sorted(path.suffix for path in (tmp_path / "runs/bench").iterdir())
    assert files == [".json", ".md", ".png"]
    (path,) = (tmp_path / "runs/bench").glob("*_cpu_1threads_float32.json")
    found = Results.read(path)
    assert found.environment["threads"] == 1
    assert {row.block for row in found.rows} == {"paper", "gate", "concat"}
    assert found.options["command"].startswith("umie bench --sizes tiny")


def test_results_are_never_overwritten(umie, tmp_path):
    command = ("bench", *SLICE, "--blocks", "text_only", "--no-peers", "--no-memory", "--directions", "forward")
    for _ in range(2):
        assert umie(*command)[0] == 0
    assert len(list((tmp_path / "runs/bench").glob("*.json"))) == 2
    assert umie(*command, "--output", "mine.json")[0] == 0
    before = (tmp_path / "mine.json").read_bytes()
    code, _, err = umie(*command, "--output", "mine")
    assert (code, err.count("\n")) == (2, 1)
    assert "mine.json is there already" in err
    assert (tmp_path / "mine.json").read_bytes() == before


def test_a_wrong_kernel_is_told_and_the_code_is_one(umie, monkeypatch, tmp_path):
    class Off(Sdpa):
        def attend(self, q, k, v, **options):
            return 1.03 * super().attend(q, k, v, **options)

    monkeypatch.setitem(kernels._parts, "off", Off)
    code, out, err = umie("bench", *SLICE, "--blocks", "paper", "--backends", "off,sdpa", "--output", "found")
    assert code == 1
    assert "paper umie off" in err
    assert "wrong: error" in out
    statuses = {row["name"]: row["status"] for row in json.loads((tmp_path / "found.json").read_text())["rows"]}
    assert (statuses["umie off"], statuses["umie sdpa"]) == ("wrong", "done")


def test_a_dry_run_lists_everything_and_runs_nothing(umie, tmp_path):
    code, out, _ = umie("bench", "--sizes", "xl", "--batch", "64", "--blocks", "all", "--dry-run")
    assert code == 0
    assert "released: umie sdpa (forward, forward+backward): would run" in out
    assert "text_only: umie" in out
    assert not (tmp_path / "runs").exists()


def test_a_dry_run_for_a_device_that_is_not_here_says_so(umie):
    code, out, err = umie("bench", "--device", "cuda:99", "--blocks", "paper", "--compile", "--dry-run")
    assert code == 0
    assert "nothing runs on cuda:99 here" in err
    assert "umie sdpa, graph" in out
    code, _, err = umie("bench", "--device", "cuda:99", "--blocks", "paper")
    assert (code, err.count("\n")) == (2, 1)
    assert "--device cuda:99: " in err


def test_explain_says_which_backend_auto_takes(umie):
    code, out, _ = umie("bench", "--explain", "--tokens", "16,512", "--directions", "forward")
    assert code == 0
    assert "T=16 V=37 D=768 H=12 dense float32 forward on cpu: auto takes sdpa" in out
    assert "expects" in out


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--blocks", "relesed"], "Unknown block 'relesed'. Did you mean 'released'?"),
        (["--backends", "sdp"], "Unknown attention backend 'sdp'. Did you mean 'sdpa'?"),
        (["--sizes", "bas"], "Unknown size 'bas'. Did you mean 'base'?"),
        (["--dtypes", "float"], "Unknown dtype 'float'"),
        (["--directions", ""], "no direction is given"),
        (["--batch", "0"], "--batch is '0': give whole numbers above 0"),
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
def measured(umie, tmp_path):
    assert umie("bench", *SLICE, "--blocks", "text_only", "--no-peers", "--output", "old")[0] == 0
    return tmp_path / "old.json"


def scaled(path, to, factor, rounds=7, **environment):
    data = json.loads(path.read_text())
    for row in data["rows"]:
        row["seconds"] = [factor * (1 + 0.01 * (number % 2)) for number in range(rounds)]
    data["environment"] |= environment
    to.write_text(json.dumps(data))
    return to


def test_compare_tells_what_moved(umie, measured, tmp_path):
    old = scaled(measured, tmp_path / "a.json", 1)
    code, out, _ = umie("bench", "compare", old, old)
    assert (code, "nothing moved" in out) == (0, True)
    code, out, _ = umie("bench", "compare", old, scaled(measured, tmp_path / "b.json", 1.5))
    assert code == 1
    assert "slower: text_only: umie, tiny B=2 T=5" in out
    assert "x 1.50" in out
    assert umie("bench", "compare", old, tmp_path / "b.json", "--tolerance", "0.6")[0] == 0
    assert umie("bench", "compare", tmp_path / "b.json", old)[0] == 0  # faster is no fault


def test_times_of_too_few_rounds_are_shown_and_are_no_verdict(umie, measured, tmp_path):
    old, new = scaled(measured, tmp_path / "a.json", 1), scaled(measured, tmp_path / "b.json", 1.5, rounds=6)
    code, out, err = umie("bench", "compare", old, new)
    assert code == 0
    assert "slower: text_only: umie" in out
    assert ", too few rounds\n" in out
    assert "in too few rounds, no verdict" in err
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
    assert "compared all the same" in err


def test_help_teaches_with_examples(umie):
    code, out, _ = umie("bench", "--help")
    assert code == 0
    assert "umie bench compare before.json after.json" in out
    assert "--backends all --ragged --dense --lengths tweets.jsonl" in " ".join(out.split())
    assert "reference, packed and xformers" in " ".join(out.replace("│", " ").split())
    assert "compare" in out
