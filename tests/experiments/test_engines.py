"""Engines: jobs run once, in parallel, apart from each other; what hangs, floods or dies takes nothing with it."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from umie.errors import UmieError
from umie.experiments.engines import build_engine, read_engine
from umie.experiments.engines.base import LOG, Job, result_of
from umie.experiments.engines.inline import InlineEngine
from umie.experiments.engines.processes import KEPT, ProcessEngine
from umie.experiments.limits import Limits, duration_text, read_duration, read_size, size_text
from umie.experiments.run_job import TRIVIAL

linux = pytest.mark.skipif(sys.platform != "linux", reason="processes are forked on Linux only")


class Watch:
    """A watcher that records."""

    def __init__(self):
        self.starts, self.advances = [], []

    def started(self, job):
        self.starts.append(job.name)

    def advanced(self, job, phase, share):
        self.advances.append((job.name, phase, share))


def trivial(folder: Path, name: str) -> Job:
    values = {"kind": TRIVIAL, "identity": {"hash": name}, "answer": {"metrics": {}}}
    return Job(name, folder / name, values)


def running(folder: Path, name: str, code: str) -> Job:
    """Return a job that runs code, as a plugin, and then crashes, because it has no data."""
    (folder / f"{name}.py").write_text(code)
    config = {"plugins": [str(folder / f"{name}.py")]}
    return Job(name, folder / name, {"kind": "cell", "identity": {"hash": name}, "config": config, "data": {}})


def run(engine, jobs) -> dict[str, dict]:
    return {job.name: result_of(job, how) for job, how in engine.run(jobs, Watch())}


def is_running(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_inline_runs_jobs_in_order(tmp_path):
    jobs = [trivial(tmp_path, "a"), running(tmp_path, "b", "print('hello')"), trivial(tmp_path, "c")]
    watch = Watch()
    ended = [(job.name, result_of(job, how)["status"]) for job, how in InlineEngine().run(jobs, watch)]
    assert ended == [("a", "ok"), ("b", "crashed"), ("c", "ok")]
    assert watch.starts == ["a", "b", "c"]
    assert (tmp_path / "b" / LOG).read_text() == "hello\n"


FLOOD = """
import os
print("the first line")
for number in range(200):
    os.write(2, b"x" * 99_999 + b"\\n")
print("the last line")
"""
DAEMON = """
import subprocess
process = subprocess.Popen(["sleep", "600"])
print(process.pid)
"""
STATE = """
import os, sys, random, logging, torch
print(torch.get_default_dtype(), torch.get_num_threads(), torch.initial_seed(), os.environ.get("LEFT"),
      logging.getLogger().handlers, sorted(one for one in sys.modules if "left_here" in one), os.getcwd())
torch.set_default_dtype(torch.float64)
torch.manual_seed(123)
torch.set_num_threads(7)
os.environ["LEFT"] = "1"
os.chdir("/")
logging.getLogger().addHandler(logging.NullHandler())
sys.modules["left_here"] = sys
"""


@linux
def test_what_a_job_does_wrong_ends_only_that_job(tmp_path, monkeypatch):
    """The jobs run in a folder that has a folder called umie, which is not what they import."""
    (tmp_path / "umie").mkdir()
    (tmp_path / "umie" / "__init__.py").write_text("raise RuntimeError('the wrong code')")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FROM_PARENT", "yes")
    codes = {
        "state 1": STATE,
        "floods": FLOOD,
        "leaves a child": DAEMON,
        "is killed": "import os; os.kill(os.getpid(), 9)",
        "exits": "import os; os._exit(7)",
        "environment": "import os, sys; print(os.environ['FROM_PARENT'], sys.stdin.read() == '')",
        "state 2": STATE,
    }
    jobs = [running(tmp_path, name, code) for name, code in codes.items()]
    jobs[3:3] = [trivial(tmp_path, f"trivial {number}") for number in range(5)]
    engine = ProcessEngine(2)
    found = run(engine, jobs)
    assert len(found) == len(jobs)
    assert [found[f"trivial {number}"]["status"] for number in range(5)] == ["ok"] * 5
    errors = {name: line.get("error", "") for name, line in found.items()}
    assert errors["is killed"] == "the process was killed by signal 9"
    assert errors["exits"] == "the process ended with exit code 7"
    assert errors["leaves a child"] == "KeyError: 'data'"  # it ended by itself
    assert not is_running(int((tmp_path / "leaves a child" / LOG).read_text()))
    assert (tmp_path / "environment" / LOG).read_text() == "yes True\n"
    log = (tmp_path / "floods" / LOG).read_text()
    assert 2 * KEPT < len(log) < 2 * KEPT + 200
    assert log.startswith("the first line\nxxx")
    assert "bytes of this log were cut]\n" in log
    assert log.endswith("xxx\nthe last line\n")
    first, second = ((tmp_path / f"state {number}" / LOG).read_text().split() for number in (1, 2))
    assert first == second
    assert first[:2] == ["torch.float32", str(engine.num_threads)]
    left = [one for one in psutil.Process().children(recursive=True) if one.status() != psutil.STATUS_ZOMBIE]
    assert all("resource_tracker" in " ".join(one.cmdline()) for one in left)


@linux
@pytest.mark.slow
def test_jobs_over_their_limits_end(tmp_path):
    fill = "kept = []\nwhile True: kept.append(b'x' * 100_000_000)"
    codes = {
        "hangs": "print('before'); import time; time.sleep(600)",
        "is deaf": "import signal; signal.signal(15, signal.SIG_IGN); signal.signal(2, signal.SIG_IGN)\n"
        "while True: pass",
        "fills memory": fill,
        "a child fills memory": f"import subprocess, sys\nsubprocess.run([sys.executable, '-c', {fill!r}])",
    }
    jobs = [running(tmp_path, name, code) for name, code in codes.items()]
    found = run(ProcessEngine(2, Limits(time_s=10, memory_bytes=1_500_000_000)), [*jobs, trivial(tmp_path, "last")])
    assert found["last"]["status"] == "ok"
    assert found["hangs"]["error"] == found["is deaf"]["error"] == "over its time limit of 10 s"
    assert found["hangs"]["traceback"] == "before\n"
    assert found["fills memory"]["error"] == "over its memory limit of 1.5 GB"
    assert found["a child fills memory"]["error"] == "over its memory limit of 1.5 GB"


DRIVER = """
from pathlib import Path
from umie.experiments.engines.base import Job
from umie.experiments.engines.processes import ProcessEngine, Unwatched

folder = Path({folder!r})
(folder / "waits.py").write_text("import os, time; print(os.getpid(), flush=True); time.sleep(600)")
config = {{"plugins": [str(folder / "waits.py")]}}
values = {{"kind": "cell", "identity": {{"hash": "a"}}, "config": config, "data": {{}}}}
list(ProcessEngine(2).run([Job(name, folder / name, values) for name in ("1", "2")], Unwatched()))
"""


def pids_in(*logs: Path) -> list[int]:
    end = time.monotonic() + 180
    while time.monotonic() < end:
        if all(log.exists() and log.read_text().endswith("\n") for log in logs):
            return [int(log.read_text()) for log in logs]
        time.sleep(0.05)
    raise AssertionError("the jobs did not start")


@linux
@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT], ids=["killed", "interrupted"])
def test_jobs_end_with_what_started_them(tmp_path, how):
    script = tmp_path / "driver.py"
    script.write_text(DRIVER.format(folder=str(tmp_path)))  # without a guard: jobs do not run it again
    driver = subprocess.Popen([sys.executable, str(script)], stderr=subprocess.PIPE, text=True)
    try:
        pids = [*pids_in(tmp_path / "1" / LOG, tmp_path / "2" / LOG)]
        pids += [one.pid for one in psutil.Process(driver.pid).children(recursive=True)]
        os.kill(driver.pid, how)
        driver.wait(timeout=20)
        end = time.monotonic() + 20
        while alive := list(filter(is_running, pids)):
            assert time.monotonic() < end, alive
            time.sleep(0.05)
    finally:
        driver.kill()
        driver.communicate()


# --- limits and options ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("2h", 7200), ("1h 30m", 5400), ("1.5 min", 90), ("1d", 86400), ("10M", 600)]
)
def test_durations_have_units(text, seconds):
    assert read_duration("time_limit", text) == seconds


@pytest.mark.parametrize("value", [90, "90", "h", "2 weeks", "0s", "-1h", "", "1h30", True, [], "1e3s", "9999d"])
def test_other_durations_are_errors(value):
    with pytest.raises(UmieError, match="time_limit is .*: use a time with a unit"):
        read_duration("time_limit", value)


@given(st.integers(1, 365 * 86400))
def test_a_duration_is_read_as_it_is_written(seconds):
    assert read_duration("time_limit", duration_text(seconds)) == seconds


@pytest.mark.parametrize(
    ("text", "size"), [("8GB", 8 * 10**9), ("512 MiB", 512 << 20), ("1.5gib", 3 << 29), ("2g", 2 * 10**9)]
)
def test_sizes_have_units(text, size):
    assert read_size("memory_limit", text) == size


@pytest.mark.parametrize("value", [8, "8", "8000000000", "8 apples", "GB", "-1GB", "1kB", "", True, {}, "1e99GB"])
def test_other_sizes_are_errors(value):
    with pytest.raises(UmieError, match="memory_limit is .*: use a size with a unit"):
        read_size("memory_limit", value)


@given(st.integers(1, 10**4), st.sampled_from(["MB", "GB", "TB", "MiB", "GiB"]))
@example(10_000, "GiB")
@example(1_250, "GiB")
def test_a_size_is_read_as_it_is_written(number, unit):
    size = read_size("memory_limit", f"{number}{unit}")
    assert read_size("memory_limit", size_text(size)) == pytest.approx(size, rel=0.01)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("process", "Unknown engine 'process'. Did you mean 'processes'?"),
        ({"name": "inline", "workers": 2}, "Unknown key 'workers'"),
        (3, "engine is 3: expected a mapping"),
        ({"name": ["inline"]}, "Unknown engine"),
    ],
)
def test_unknown_engines_are_errors(value, message):
    with pytest.raises(UmieError, match=message.replace("?", r"\?")):
        read_engine(value)


def test_inline_has_no_limits():
    with pytest.raises(UmieError, match="engine inline cannot end a cell"):
        build_engine(read_engine("inline"), None, Limits(time_s=1), Path())
    assert json.dumps(read_engine(None).model_dump()) == '{"name": "processes"}'
