"""`umie example`, from a checkout and from a wheel."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from umie.experiments.expand import read_grid

ROOT = Path(__file__).resolve().parents[2]


def test_all_examples_are_listed(umie):
    code, out, _ = umie("example")
    assert code == 0
    names = [file.relative_to(ROOT / "examples").as_posix() for file in (ROOT / "examples").rglob("*.*")]
    for name in names:
        assert (name in out) == ("__pycache__" not in name)


def test_all_of_them_at_once(umie, tmp_path):
    code, out, _ = umie("example", "--all", "--output", str(tmp_path))
    written = {file.relative_to(tmp_path) for file in tmp_path.rglob("*.*") if file.is_file()}
    assert (code, out.count("wrote")) == (0, len(written))
    assert {Path("embedded.yaml"), Path("real/results/mnre2_span.umie.gz")} <= written
    code, _, err = umie("example", "--all", "--output", str(tmp_path))
    assert code == 2
    assert "exists" in err
    assert "leave the names out" in umie("example", "embedded.yaml", "--all")[2]


def test_a_written_example_can_be_run(umie, tmp_path, forget_plugins):
    files = [
        "own_parts.yaml",
        "own_task.py",
        "own_fusion.py",
        "own_encoder.py",
        "data/hashtags.jsonl",
        "data/hashtags_test.jsonl",
        "real/gmner_span.yaml",
    ]
    code, out, _ = umie("example", *files, "--output", str(tmp_path / "study"))
    assert (code, out.count("wrote")) == (0, len(files))
    grid = tmp_path / "study" / "own_parts.yaml"
    for written in (grid, grid.parent / "real" / "gmner_span.yaml"):
        schema = written.read_text().splitlines()[1].partition("$schema=")[2]
        assert Path(schema).is_file()
    assert read_grid(grid).name == "own-parts"
    code, out, _ = umie("ablate", str(grid), "--plan")
    assert code == 0, out


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["embedded.yml"], "Unknown example 'embedded.yml'. Did you mean 'embedded.yaml'?"),
        (["minilm.yaml", "embedded.yaml"], "embedded.yaml exists: remove it"),
    ],
)
def test_nothing_is_overwritten_or_half_written(umie, tmp_path, monkeypatch, names, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "embedded.yaml").write_text("mine")
    code, _, err = umie("example", *names)
    assert (code, message in err) == (2, True)
    assert [file.name for file in tmp_path.iterdir()] == ["embedded.yaml"]
    assert (tmp_path / "embedded.yaml").read_text() == "mine"


@pytest.mark.parametrize(
    "commands",
    [
        pytest.param([["example", "embedded.yaml"]], id="written"),
        pytest.param(
            [["example", "embedded.yaml"], ["ablate", "embedded.yaml", "--plan"]], id="planned", marks=pytest.mark.slow
        ),
    ],
)
def test_a_wheel_contains_the_examples_and_runs_one(tmp_path, commands):
    hatchling = shutil.which("hatchling", path=str(Path(sys.executable).parent))
    if hatchling is None:
        pytest.skip("hatchling is not installed")
    subprocess.run([hatchling, "build", "--target", "wheel", "--directory", tmp_path], cwd=ROOT, check=True)
    (wheel,) = tmp_path.glob("*.whl")
    installed = tmp_path / "installed"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(installed)
    for command in commands:
        run = subprocess.run(
            [sys.executable, "-P", "-m", "umie", *command],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(installed)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert run.returncode == 0, run.stderr
    assert f"$schema={installed}" in (tmp_path / "embedded.yaml").read_text()  # this umie, not that of the checkout
