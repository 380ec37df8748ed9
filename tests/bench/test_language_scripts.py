"""The scripts that measure training and generation: their output, and nothing wrong is timed."""

import importlib.util
import json
import sys
from pathlib import Path

import pytest
import torch

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
SMALL = ["--size", "tiny", "--batch", "2", "--tokens", "6", "--slots", "3", "--feature-dim", "5", "--rounds", "2"]
SCRIPTS = {
    "training": ("steps.py", ["--targets", "3"], {"plain T5", "umie, gated"}),
    "generation": (
        "tokens.py",
        ["--new-tokens", "3"],
        {
            "plain T5, text only",
            "umie, text only",
            "umie, text and image",
            "plain T5, from fused states",
            "umie, from fused states",
            "umie, text and image, no cache",
        },
    ),
}


@pytest.fixture(params=SCRIPTS)
def script(request, monkeypatch):
    """A script as a module, its arguments, and the rows that it has."""
    file, more, rows = SCRIPTS[request.param]
    path = BENCHMARKS / request.param / file
    monkeypatch.setattr(sys, "path", [str(BENCHMARKS), *sys.path])
    spec = importlib.util.spec_from_file_location(f"benchmark_{request.param}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", [str(path), *SMALL, *more, "--threads", "1", *map(str, arguments)])
        module.shared.run(module.main)

    return module, call, rows


@pytest.mark.slow
def test_a_run_prints_a_table_and_writes_all_figures(script, tmp_path, capsys):
    _, call, rows = script
    call("--output", tmp_path / "found.md")
    text = (tmp_path / "found.md").read_text()
    assert text in capsys.readouterr().out
    assert "too few rounds" in text
    found = json.loads((tmp_path / "found.json").read_text())
    assert found["rows"].keys() == rows
    for name, row in found["rows"].items():
        assert len(row["seconds"]) == 2
        assert f"| {name} " in text
    assert found["environment"]["versions"]["torch"] == torch.__version__.partition("+")[0]
    assert found["complete"]


@pytest.mark.slow
def test_another_fusion_runs(script, tmp_path):
    _, call, _ = script
    call("--fusion", "concat", "--output", tmp_path / "found.md")
    assert (tmp_path / "found.json").exists()


def test_nothing_is_timed_if_the_weights_differ(script, tmp_path, monkeypatch):
    module, call, _ = script
    plain_t5 = module.shared.plain_t5

    def other(*arguments, **options):
        made = plain_t5(*arguments, shared=False)
        with torch.no_grad():
            made.shared.weight.copy_(made.shared.weight.flip(0))
        return made

    monkeypatch.setattr(module.shared, "plain_t5", other)
    with pytest.raises(AssertionError, match="differ"):
        call("--output", tmp_path / "found.md")
    assert not list(tmp_path.iterdir())


def test_bad_options_are_one_line(script, capsys):
    _, call, _ = script
    with pytest.raises(SystemExit) as caught:
        call("--rounds", "0")
    assert caught.value.code == 2
    assert "--rounds is 0" in capsys.readouterr().err


def test_an_interrupt_loses_no_finished_round(script, tmp_path, monkeypatch):
    module, call, _ = script

    def interrupted(runs, *, times, **options):
        for name in runs:
            times[name].append(1.0)
        raise KeyboardInterrupt

    monkeypatch.setattr(module.shared, "time_rounds", interrupted)
    call("--output", tmp_path / "found.md")
    found = json.loads((tmp_path / "found.json").read_text())
    assert not found["complete"]
    assert all(row["seconds"] == [1.0] for row in found["rows"].values())
    assert "**Interrupted**" in (tmp_path / "found.md").read_text()
