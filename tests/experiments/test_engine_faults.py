"""Kills at random moments lose no finished cell, run none twice, and leave the table as it is without them.

``UMIE_KILLS`` is the number of kills: of processes of cells, and of the grid.
"""

import os
import random
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest
import trivial_grid
from conftest import write_small_grid
from grid_helpers import lines_of

from umie.experiments import scheduler
from umie.experiments.results import RESULTS
from umie.files import read_json
from umie.reports.grid import write_report

KILLS = int(os.environ.get("UMIE_KILLS", "20"))
NUM_CELLS = 6 * KILLS

pytestmark = [pytest.mark.slow, pytest.mark.skipif(sys.platform != "linux", reason="cells are forked on Linux only")]


@pytest.fixture
def grid(tmp_path):
    return write_small_grid(
        tmp_path,
        data={"format": "synthetic", "train": 12, "dev": 6, "test": 6},
        tasks=["mner"],
        fusion=["text_only"],
        seeds=list(range(NUM_CELLS)),
        warm_start=...,
    )


@pytest.fixture
def expected(grid, tmp_path, monkeypatch) -> bytes:
    """The table without kills."""
    monkeypatch.setattr(scheduler, "Runner", scheduler.Runner)  # restored after the test
    write_report(trivial_grid.run(grid, tmp_path / "calm", tmp_path / "started.txt"), tmp_path / "calm")
    return (tmp_path / "calm" / "table.md").read_bytes()


def cells_below(pid: int) -> list[psutil.Process]:
    """Return the processes of cells: the children of the servers that a grid started."""
    try:
        return [cell for server in psutil.Process(pid).children() for cell in server.children()]
    except psutil.NoSuchProcess:
        return []


def finished(output: Path) -> set[str]:
    """Return the names of the cells with a result."""
    lines = lines_of(output) if (output / RESULTS).exists() else []
    lines += [read_json(path) for path in output.glob("cells/*/result.json")]
    return {f"{line['variant']}, seed {line['seed']}" for line in lines if line["status"] == "ok"}


def check(output: Path, run, expected: bytes) -> None:
    assert not run.crashed
    assert not run.missing
    done = [line["hash"] for line in lines_of(output) if line["status"] == "ok"]
    assert len(done) == len(set(done)) == NUM_CELLS
    write_report(run, output)
    assert (output / "table.md").read_bytes() == expected


def test_killed_cells_run_again_and_the_others_do_not(grid, expected, tmp_path):
    output, started = tmp_path / "run", tmp_path / "started.txt"
    is_over, kills, drawn = threading.Event(), [], random.Random(1)

    def kill() -> None:
        while not is_over.is_set() and len(kills) < KILLS:
            time.sleep(drawn.random() * 0.3)
            if cells := cells_below(os.getpid()):
                try:
                    drawn.choice(cells).kill()
                    kills.append(1)
                except psutil.NoSuchProcess:
                    pass

    thread = threading.Thread(target=kill)
    thread.start()
    try:
        for _ in range(KILLS):
            before = finished(output)
            started.unlink(missing_ok=True)
            run = trivial_grid.run(grid, output, started)
            assert before.isdisjoint(started.read_text().splitlines())
            assert all("killed by signal 9" in run.results[cell.hash]["error"] for cell in run.crashed)
            if not run.crashed:
                break
    finally:
        is_over.set()
        thread.join()
    assert kills
    check(output, run, expected)


def test_a_killed_grid_goes_on(grid, expected, tmp_path):
    output, started, drawn = tmp_path / "run", tmp_path / "started.txt", random.Random(2)
    script = Path(trivial_grid.__file__)
    for _ in range(KILLS):
        before = finished(output)
        started.unlink(missing_ok=True)
        driver = subprocess.Popen([sys.executable, str(script), str(grid), str(output), str(started)])
        while not started.exists() and driver.poll() is None:
            time.sleep(0.01)
        time.sleep(drawn.random() * 0.5)
        cells = cells_below(driver.pid)
        driver.kill()
        driver.wait()
        _, alive = psutil.wait_procs(cells, timeout=10)
        assert not [one for one in alive if one.status() != psutil.STATUS_ZOMBIE]
        assert not started.exists() or before.isdisjoint(started.read_text().splitlines())
        assert before <= finished(output)
        if len(before) == NUM_CELLS:
            break
    before = finished(output)
    started.unlink(missing_ok=True)
    run = trivial_grid.run(grid, output, started)
    assert not started.exists() or before.isdisjoint(started.read_text().splitlines())
    check(output, run, expected)
