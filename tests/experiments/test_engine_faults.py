"""Kills and full disks lose no finished cell, run none again, and leave the table as it is without them.

``UMIE_KILLS`` is the number of kills in each test with kills at random moments; with processes, at most 50 of grids.
"""

import itertools
import json
import multiprocessing
import os
import random
import resource
import signal
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
import trivial_grid
from conftest import write_small_grid
from grid_helpers import lines_of

from umie.experiments import scheduler
from umie.experiments.engines import build_engine, read_engine
from umie.experiments.engines.inline import InlineEngine
from umie.experiments.limits import Limits
from umie.experiments.results import RESULTS
from umie.files import read_json
from umie.reports.grid import write_report

KILLS = int(os.environ.get("UMIE_KILLS", "20"))
NUM_CELLS = 6 * KILLS
WRITES = {"os.rename", "os.remove", "os.mkdir", "os.truncate", "shutil.rmtree"}  # and files opened for writing

pytestmark = [pytest.mark.slow, pytest.mark.skipif(sys.platform != "linux", reason="cells are forked on Linux only")]


@pytest.fixture
def grid_of(tmp_path, monkeypatch):
    """Return a grid with this number of cells, and its table without kills: ``grid_of(6)``."""
    monkeypatch.setattr(scheduler, "Runner", scheduler.Runner)  # restored after the test

    def make(num_cells):
        grid = write_small_grid(
            tmp_path,
            data={"format": "synthetic", "train": 12, "dev": 6, "test": 6},
            tasks=["mner"],
            fusion=["text_only"],
            seeds=list(range(num_cells)),
            warm_start=...,
        )
        write_report(
            trivial_grid.run(grid, tmp_path / "calm", tmp_path / "started.txt", InlineEngine()), tmp_path / "calm"
        )
        return grid, (tmp_path / "calm" / "table.md").read_bytes()

    return make


def cells_below(pid: int) -> list[psutil.Process]:
    """Return the processes of cells: the children of the servers that a grid started."""
    try:
        return [cell for server in psutil.Process(pid).children() for cell in server.children()]
    except psutil.NoSuchProcess:
        return []


def finished(output: Path) -> set[str]:
    """Return the names of the cells with a result."""
    text = (output / RESULTS).read_text() if (output / RESULTS).exists() else ""
    lines = [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]
    lines += [read_json(path) for path in output.glob("cells/*/result.json")]
    return {f"{line['variant']}, seed {line['seed']}" for line in lines if line["status"] == "ok"}


def check(output: Path, run, expected: bytes, num_cells: int = NUM_CELLS) -> None:
    assert not run.crashed
    assert not run.missing
    done = [line["hash"] for line in lines_of(output) if line["status"] == "ok"]
    assert len(done) == len(set(done)) == num_cells
    write_report(run, output)
    assert (output / "table.md").read_bytes() == expected


def test_killed_cells_run_again_and_the_others_do_not(grid_of, tmp_path):
    grid, expected = grid_of(NUM_CELLS)
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


def test_a_killed_grid_with_processes_goes_on(grid_of, tmp_path):
    grid, expected = grid_of(NUM_CELLS)
    output, started, drawn = tmp_path / "run", tmp_path / "started.txt", random.Random(2)
    script = Path(trivial_grid.__file__)
    for _ in range(min(KILLS, 50)):  # each start of the grid imports torch twice
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
    go_on(grid, output, started, expected, NUM_CELLS)


def go_on(grid: Path, output: Path, started: Path, expected: bytes, num_cells: int) -> None:
    """Finish a grid, in this process, and check that only what was not finished runs."""
    before = finished(output)
    started.unlink(missing_ok=True)
    run = trivial_grid.run(grid, output, started, InlineEngine())
    assert not started.exists() or before.isdisjoint(started.read_text().splitlines())
    check(output, run, expected, num_cells)


def forked(grid: Path, output: Path, started: Path, before=lambda: None) -> multiprocessing.process.BaseProcess:
    """Start a grid in a fork of this process, which runs its cells itself, after calling ``before``."""

    def work():
        os.dup2(os.open(started.with_suffix(".err"), os.O_WRONLY | os.O_CREAT), 2)
        before()
        trivial_grid.run(grid, output, started, InlineEngine())

    process = multiprocessing.get_context("fork").Process(target=work)
    process.start()
    return process


def test_a_grid_that_is_killed_at_random_moments_goes_on(grid_of, tmp_path):
    num_cells, num_kills, num_among_cells, drawn = 40, 0, 0, random.Random(3)
    grid, expected = grid_of(num_cells)
    for number in itertools.count():
        output, started = tmp_path / f"run{number}", tmp_path / f"started{number}.txt"
        while len(before := finished(output)) < num_cells and num_kills < KILLS:
            started.unlink(missing_ok=True)
            driver = forked(grid, output, started)
            if drawn.random() < 0.8:
                while not started.exists() and driver.is_alive():
                    time.sleep(0.001)
            time.sleep(drawn.random() * 0.1)
            driver.kill()
            driver.join()
            assert driver.exitcode in (0, -signal.SIGKILL)
            num_kills += 1
            num_among_cells += driver.exitcode != 0 and started.exists()
            assert not started.exists() or before.isdisjoint(started.read_text().splitlines())
            assert before <= finished(output)
        go_on(grid, output, started, expected, num_cells)
        if num_kills >= KILLS:
            break
    assert num_among_cells > KILLS // 4


def test_a_grid_that_is_killed_at_any_write_goes_on(grid_of, tmp_path):
    """Python tells of each file that is about to be opened for writing, renamed or removed; then the grid is killed."""
    grid, expected = grid_of(2)

    def die_at(number):
        count = itertools.count()

        def hook(event, arguments):
            writes = event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR)
            if (event in WRITES or writes) and next(count) == number:
                os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(hook)

    for number in itertools.count():
        output, started = tmp_path / f"run{number}", tmp_path / f"started{number}.txt"
        driver = forked(grid, output, started, lambda number=number: die_at(number))
        driver.join()
        go_on(grid, output, started, expected, 2)
        if driver.exitcode != -signal.SIGKILL:
            break
    assert number > 20
    assert driver.exitcode == 0


def test_a_disk_that_is_full_at_the_append_loses_nothing(grid_of, tmp_path):
    """The limit on the size of a file makes the append fail after a part of the line."""
    grid, expected = grid_of(6)
    length = len((tmp_path / "calm" / RESULTS).read_bytes())
    for size in (length // 7, length // 2, length * 5 // 6):
        output, started = tmp_path / f"run{size}", tmp_path / f"started{size}.txt"

        def limit(size=size):
            append = scheduler.append_result

            def full(path, line):
                before = resource.getrlimit(resource.RLIMIT_FSIZE)
                resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
                try:
                    append(path, line)
                finally:
                    resource.setrlimit(resource.RLIMIT_FSIZE, before)

            scheduler.append_result = full

        driver = forked(grid, output, started, limit)
        driver.join()
        assert driver.exitcode == 1
        text = started.with_suffix(".err").read_text()
        assert "results.jsonl: a result cannot be appended: File too large; finished cells keep their results" in text
        assert finished(output)
        go_on(grid, output, started, expected, 6)


def test_of_many_grids_in_one_directory_one_runs(grid_of, tmp_path):
    num_cells = 1000
    grid, expected = grid_of(num_cells)
    output = tmp_path / "run"
    drivers = [forked(grid, output, tmp_path / f"started{number}.txt") for number in range(16)]
    for driver in drivers:
        driver.join()
    started = [name for path in tmp_path.glob("started[0-9]*.txt") for name in path.read_text().splitlines()]
    assert len(started) == len(set(started)) == num_cells
    assert sorted({driver.exitcode for driver in drivers}) == [0, 1]
    go_on(grid, output, tmp_path / "started.txt", expected, num_cells)


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::DeprecationWarning", "ignore::FutureWarning")
def test_ray_goes_on_without_a_node_that_is_lost(grid_of, tmp_path):
    """Two nodes, each with folders of its own; one is killed as soon as it has started a cell."""
    pytest.importorskip("ray", reason="needs ray: pip install 'umie[ray]'")
    from ray.cluster_utils import Cluster

    num_cells = 60
    grid, expected = grid_of(num_cells)
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    output, ran_on = tmp_path / "run", []
    try:
        node = cluster.add_node(num_cpus=1)
        cluster.wait_for_nodes()
        engine = build_engine(
            read_engine({"name": "ray", "address": cluster.address, "num_cpus": 1}), None, Limits(), output
        )

        def lose() -> None:
            pattern = f"umie-*-{node.node_id}/jobs/*"
            while not ran_on and not is_over.is_set():
                ran_on.extend(Path(tempfile.gettempdir()).glob(pattern))
                time.sleep(0.01)
            cluster.remove_node(node, allow_graceful=False)

        is_over = threading.Event()
        thread = threading.Thread(target=lose)
        thread.start()
        try:
            run = trivial_grid.run(grid, output, tmp_path / "started.txt", engine)
        finally:
            is_over.set()
            thread.join()
    finally:
        cluster.shutdown()
    assert ran_on
    check(output, run, expected, num_cells)


def test_a_grid_whose_ray_head_is_killed_goes_on(grid_of, tmp_path):
    pytest.importorskip("ray", reason="needs ray: pip install 'umie[ray]'")
    num_cells, drawn = 40, random.Random(4)
    grid, expected = grid_of(num_cells)
    output, started, script = tmp_path / "run", tmp_path / "started.txt", Path(trivial_grid.__file__)
    for server in ("raylet", "gcs_server"):
        before = finished(output)
        started.unlink(missing_ok=True)
        driver = subprocess.Popen([sys.executable, str(script), str(grid), str(output), str(started), "ray"])
        while not started.exists() and driver.poll() is None:
            time.sleep(0.01)
        time.sleep(drawn.random())
        family = psutil.Process(driver.pid).children(recursive=True)
        killed = []
        for one in family:
            with suppress(psutil.NoSuchProcess):
                if one.name().startswith(server):
                    one.kill()
                    killed.append(one)
        assert killed
        try:
            driver.wait(5)
        except subprocess.TimeoutExpired:  # ray waits for its head for a minute
            driver.kill()
            driver.wait()
        for one in family:
            with suppress(psutil.NoSuchProcess):
                one.kill()
        psutil.wait_procs(family, timeout=10)
        assert not started.exists() or before.isdisjoint(started.read_text().splitlines())
        assert before <= finished(output)
    go_on(grid, output, started, expected, num_cells)
