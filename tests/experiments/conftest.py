"""Fixtures of runs and grids: a small grid, a progress display that records, and a finished grid."""

from __future__ import annotations

import copy
import dataclasses
import io
import os
import shutil
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import pytest
import yaml
from grid_helpers import cells_in_process, lines_of
from small_run import SMALL as RUN

from umie import cli
from umie.experiments.engines.inline import InlineEngine
from umie.experiments.expand import read_grid
from umie.experiments.grid_run import GridRun
from umie.experiments.parts import check_parts
from umie.experiments.scheduler import RESULTS, run_grid
from umie.experiments.tally import Tally
from umie.reports.grid import write_report

UMIE = Path(sys.executable).with_name("umie")

SMALL = {
    "name": "small",
    "data": {"format": "synthetic", "train": 60, "dev": 6, "test": 12},
    "tasks": ["mner", "mre", "med", "meae"],
    "fusion": ["gated", "text_only"],
    "seeds": [0],
    "warm_start": {"records": 30, "training": {"max_steps": 3, "batch_size": 4}},
    "training": {"max_steps": 3, "batch_size": 4},
    "evaluation": {"generation": {"max_new_tokens": 8}},
    "workers": 2,
}


@pytest.fixture(autouse=True)
def _forget(forget_plugins):
    """Remove the parts that plugins registered after each test."""


def write_small_grid(folder: Path, **changes) -> Path:
    """Write the small grid with other values for some keys; the value ... removes the key."""
    grid = {**copy.deepcopy(SMALL), **changes}
    path = folder / "grid.yaml"
    path.write_text(yaml.safe_dump({key: value for key, value in grid.items() if value is not ...}, sort_keys=False))
    return path


@pytest.fixture(scope="session")
def write_grid():
    """Write the small grid to a directory: ``write_grid(folder, seeds=[1])``."""
    return write_small_grid


@pytest.fixture
def grid_file(tmp_path):
    """Write the small grid to the directory of the test: ``grid_file(seeds=[1])``."""
    return lambda **changes: write_small_grid(tmp_path, **changes)


class Recorder:
    """A progress display that records the jobs."""

    def __init__(self) -> None:
        self.steps: list[str] = []
        self.started: list[str] = []
        self.advanced: dict[str, list[tuple[str, float]]] = {}
        self.finished: dict[str, dict] = {}
        self.tallies: list[Tally] = []

    def preparing(self, what):
        self.steps.append(what)

    def cells(self, tally):
        self.tallies.append(tally)

    def start(self, job):
        self.started.append(job)

    def advance_job(self, job, phase, share):
        self.advanced.setdefault(job, []).append((phase, share))

    def finish(self, job, line):
        self.finished[job] = dict(line)

    def note(self, what):
        self.steps.append(what)


@pytest.fixture
def run():
    """Run a grid file: ``run(path, output)``. Cells have their own processes."""

    def start(path: Path, output: Path, **options) -> tuple[GridRun, Recorder]:
        recorder = Recorder()
        return run_grid(read_grid(path), path.parent, output, recorder, **options), recorder

    return start


def environment(**changes) -> dict[str, str]:
    return {**os.environ, "HF_HUB_OFFLINE": "1", "COLUMNS": "200", **changes}


@pytest.fixture
def start_umie():
    """Start the command in its own process, which is killed at the end of the test."""
    processes = []

    def start(*arguments, **changes) -> subprocess.Popen:
        process = subprocess.Popen(
            [str(UMIE), *map(str, arguments)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment(**changes),
        )
        processes.append(process)
        return process

    yield start
    for process in processes:
        process.kill()
        process.communicate()


@dataclasses.dataclass(frozen=True)
class Finished:
    """A small grid that the command ran once, with its cells in this process; tests work on copies of its directory."""

    grid_file: Path
    output: Path
    out: str
    err: str

    @property
    def lines(self) -> list[dict]:
        return lines_of(self.output)

    def copy(self, folder: Path, *, results: bool = True) -> Path:
        """Copy the directory; without results, copy only the data and the warm start."""
        output = folder / "run"
        dropped = () if results else ("cells", RESULTS, "table.*", "figure.png")
        shutil.copytree(self.output, output, ignore=shutil.ignore_patterns(".lock", *dropped))
        return output


@pytest.fixture(scope="session")
def finished(tmp_path_factory) -> Finished:
    folder = tmp_path_factory.mktemp("finished")
    path = write_small_grid(folder, workers=os.cpu_count())  # so that a cell has one thread, as this process
    output = folder / "run"
    out, err = io.StringIO(), io.StringIO()
    with cells_in_process(), pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        patch.setattr(sys, "argv", ["umie", "ablate", str(path), "--output", str(output)])
        patch.setenv("COLUMNS", "200")
        with pytest.raises(SystemExit) as caught:
            cli.main()
    assert not caught.value.code, err.getvalue()
    return Finished(path, output, out.getvalue(), err.getvalue())


@pytest.fixture(autouse=True)
def _blank_figures(blank_figures):
    """Draw no figures but those of fixtures that several tests share."""


@pytest.fixture
def config_file(tmp_path):
    """Write the small config of a run: ``config_file(seed=1)``; the value ... removes the key."""

    def write(name="config.yaml", **changes):
        values = {**copy.deepcopy(RUN), **changes}
        path = tmp_path / name
        path.write_text(yaml.safe_dump({key: value for key, value in values.items() if value is not ...}))
        return path

    return write


@pytest.fixture
def ablate():
    """Run a grid as the command does, but its cells in this process: ``ablate(path, output)`` returns the report."""

    def start(path: Path, output: Path, *, data_root: Path | None = None) -> str:
        grid = read_grid(path)
        check_parts([cell.config for cell in grid.cells])
        result = run_grid(grid, data_root or path.parent, output, Recorder(), engine=InlineEngine())
        assert not result.crashed, [result.results.get(cell.hash, {}).get("error") for cell in result.crashed]
        return write_report(result, output)

    return start
