"""The engine ``processes``: jobs run in parallel on this machine, each in a process of its own.

On Linux, torch is imported once, in a server (multiprocessing's fork server) from which each process is forked: a job
starts in milliseconds, and nothing that an earlier one left in memory can change its result. Elsewhere, and if a GPU
was in use before the fork, each process starts Python.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing import connection
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import ModuleType
from typing import Any

from umie.experiments.engines.base import LOG, Job, Watcher, begin, result_of
from umie.experiments.limits import Limits, duration_text, size_text
from umie.experiments.results import RESULT, write_sealed
from umie.files import atomic_write, check_writable

POLL_S = 0.2  # between two checks of limits and logs
KEPT = 1 << 18  # bytes at the beginning of a long log, and at its end
LONG = 1 << 22  # bytes of a log while its job runs
_BAD_FORK = 3  # exit code
_GPU_DEVICES = ("/dev/nvidiactl", "/dev/nvidia0", "/dev/dxg", "/dev/kfd")  # of NVIDIA, Windows' Linux, AMD
_PRELOAD = "umie.experiments.engines.preload"


class ProcessEngine:
    """Run jobs in parallel, each in a process of its own; see ``Engine``.

    Args:
        workers: number of jobs at the same time; by default one per GPU, or one for every two processors.
        limits: of a job.
        num_threads: of a job; by default its share of the processors.
        keeps_server: keep the server for jobs of another ``run``, until this process ends.
    """

    def __init__(
        self,
        workers: int | None = None,
        limits: Limits | None = None,
        num_threads: int | None = None,
        *,
        keeps_server: bool = False,
    ) -> None:
        self.keeps_server = keeps_server
        self.gpus = _gpus()
        self.workers = workers or len(self.gpus) or max(1, num_processors() // 2)
        self.num_threads = num_threads or max(1, num_processors() // self.workers)
        self.limits = limits or Limits()

    def run(self, jobs: Sequence[Job], watcher: Watcher) -> Generator[tuple[Job, str]]:
        """Run jobs in processes, which end with this one, and with this generator."""
        waiting = deque(enumerate(jobs))
        free = list(range(min(self.workers, len(jobs))))
        running: dict[int, _Running] = {}  # by the number of the job
        context = self._context()
        events, report = context.Pipe(duplex=False)
        try:
            while waiting or running:
                while waiting and free:
                    number, job = waiting.popleft()
                    running[number] = self._start(context, number, job, free.pop(0), report)
                    watcher.started(job)
                ends = {one.process.sentinel: number for number, one in running.items()}
                ready = connection.wait([events, *ends], POLL_S)
                while events.poll():
                    number, phase, share = json.loads(events.recv_bytes())
                    if number in running:
                        watcher.advanced(running[number].job, phase, share)
                for one in running.values():
                    one.check(self.limits)
                for number in [ends[end] for end in ready if end in ends]:
                    one = running.pop(number)
                    free.append(one.slot)
                    how = one.finish()
                    yield one.job, how
        finally:
            for one in running.values():
                one.kill()
            for one in running.values():
                one.finish()
            events.close()
            report.close()
            if not self.keeps_server:
                _stop_server()

    def _start(self, context: Any, number: int, job: Job, slot: int, report: Connection) -> _Running:
        text = begin(job, self.num_threads)
        log = check_writable(job.folder / LOG)
        gpu = {"CUDA_VISIBLE_DEVICES": self.gpus[slot % len(self.gpus)]} if self.gpus else {}
        variables = {**os.environ, "TOKENIZERS_PARALLELISM": "false", **gpu}
        for last_try in (False, True):
            process = context.Process(target=_work, args=(number, text, str(log), variables, report))
            try:
                with _without_main():
                    process.start()
                break
            except (EOFError, ConnectionError):  # the server was killed; it is started again
                if last_try:
                    raise
        return _Running(job, slot, process, _Log(log))

    def _context(self) -> Any:
        """Return how processes are started."""
        if sys.platform != "linux":
            return multiprocessing.get_context("spawn")
        context = multiprocessing.get_context("forkserver")
        _start_server(self.num_threads)
        if self.gpus:
            probe = context.Process(target=_check_fork)
            with _without_main():
                probe.start()
            probe.join()
            if probe.exitcode == _BAD_FORK:
                return multiprocessing.get_context("spawn")
        return context


@dataclass
class _Running:
    """A job whose process runs."""

    job: Job
    slot: int
    process: BaseProcess
    log: _Log
    began: float = field(default_factory=time.monotonic)
    why: str = ""  # it was ended

    def check(self, limits: Limits) -> None:
        """End the job if it is over a limit; bound its log."""
        self.log.bound()
        if self.why:
            return
        if limits.time_s is not None and time.monotonic() - self.began > limits.time_s:
            self.why = f"over its time limit of {duration_text(limits.time_s)}"
        elif limits.memory_bytes is not None and _resident(self.process.pid) > limits.memory_bytes:
            self.why = f"over its memory limit of {size_text(limits.memory_bytes)}"
        if self.why:
            self.kill()

    def kill(self) -> None:
        """End the process, and those that it started."""
        self.process.kill()
        self._end_group()

    def finish(self) -> str:
        """Wait for the end of the process, end what it left running, and return how it ended."""
        self.process.join()
        code = self.process.exitcode or 0
        self._end_group()
        self.process.close()
        self.log.finish()
        return (
            self.why or f"the process {f'was killed by signal {-code}' if code < 0 else f'ended with exit code {code}'}"
        )

    def _end_group(self) -> None:
        if hasattr(os, "killpg") and self.process.pid is not None:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self.process.pid, signal.SIGKILL)


class _Log:
    """The log of a job: if it is long, only its beginning and its end are kept."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.end = b""
        self.num_cut = 0

    def bound(self, longest: int = LONG) -> None:
        """Cut the middle of the log if it is longer than this; the job goes on appending to it."""
        with suppress(FileNotFoundError):
            size = self.path.stat().st_size
            if size > longest:
                with self.path.open("r+b") as file:
                    file.seek(max(KEPT, size - KEPT))
                    while added := file.read():  # also what the job writes meanwhile
                        self.end = (self.end + added)[-KEPT:]
                    self.num_cut += file.tell() - KEPT
                    file.truncate(KEPT)

    def finish(self) -> None:
        """Write the end of a log whose middle was cut."""
        self.bound(2 * KEPT if not self.num_cut else KEPT)
        if self.num_cut:
            note = f"\n[about {self.num_cut - len(self.end):,} bytes of this log were cut]\n".encode()
            begin = self.path.read_bytes()
            with atomic_write(self.path, "wb") as file:
                file.write(begin + note + self.end)


class Unwatched:
    """A watcher that does nothing."""

    def started(self, job: Job) -> None:
        """Do nothing."""

    def advanced(self, job: Job, phase: str, share: float) -> None:
        """Do nothing."""


def run_here(
    job: Job, limits: Limits, num_threads: int, watcher: Watcher | None = None, *, keeps_server: bool = False
) -> None:
    """Run one job for a scheduler that brought it to this machine; it always has a result then, if only a crash."""
    engine = ProcessEngine(1, limits, num_threads, keeps_server=keeps_server)
    for _, how in engine.run([job], watcher or Unwatched()):
        line = result_of(job, how)
        if line["status"] != "ok":
            write_sealed(job.folder / RESULT, line)


def _work(number: int, text: str, log: str, variables: Mapping[str, str], events: Connection) -> None:
    """Run a job, in its process: a session of its own, so that an interrupt on the terminal is for the grid only."""
    if hasattr(os, "setsid"):
        os.setsid()
    threading.Thread(target=_end_with_parent, daemon=True).start()
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("500")  # if memory runs out, a job ends, and not the grid
    os.environ.clear()
    os.environ.update(variables)
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND, 0o666)
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
        os.dup2(output, stream.fileno())
        stream.reconfigure(encoding="utf-8", errors="backslashreplace", line_buffering=True)  # type: ignore[union-attr]
    os.close(output)
    from umie.experiments.run_job import run_job

    def report(phase: str, share: float) -> None:
        events.send_bytes(json.dumps([number, phase[:200], share]).encode())  # short: written at once, without a lock

    run_job(json.loads(text), report)


def _end_with_parent() -> None:
    """End this process and those that it started as soon as the grid is gone."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        if hasattr(os, "killpg"):
            os.killpg(0, signal.SIGKILL)
        os._exit(1)


def _check_fork() -> None:
    """Exit with _BAD_FORK if this process was forked from one that used a GPU, so that it cannot use it."""
    import torch

    if torch.cuda._is_in_bad_fork():
        sys.exit(_BAD_FORK)


def _start_server(num_threads: int) -> None:
    """Start the server from which processes are forked.

    It has the search path of this process, and not the current directory, in which a folder may have the name of a
    module.
    """
    from multiprocessing import forkserver

    forkserver.set_forkserver_preload([_PRELOAD])
    with variables(
        {
            "PYTHONPATH": python_path(),
            "PYTHONSAFEPATH": "1",
            "PYTHONUTF8": "1",
            "TOKENIZERS_PARALLELISM": "false",
            "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", str(num_threads)),
            "PYTORCH_NVML_BASED_CUDA_CHECK": "1",  # whether there is a GPU is found out without using it
        }
    ):
        is_main = threading.current_thread() is threading.main_thread()
        before = signal.signal(signal.SIGINT, signal.SIG_IGN) if is_main else None  # an interrupt is for the grid
        try:
            forkserver.ensure_running()
        finally:
            if is_main:
                signal.signal(signal.SIGINT, before)


def _stop_server() -> None:
    """Stop the server, whose memory is not needed any more, unless other processes come from it."""
    if sys.platform != "linux" or multiprocessing.active_children():
        return
    from multiprocessing import forkserver

    server: Any = forkserver._forkserver  # there is no public function
    if server._forkserver_pid is not None:
        with suppress(ProcessLookupError):
            os.kill(server._forkserver_pid, signal.SIGKILL)  # it would wait for whatever a job left running
        with suppress(ChildProcessError):
            server._stop()


@contextmanager
def variables(values: Mapping[str, str]) -> Iterator[None]:
    """Set environment variables for a moment."""
    before = dict(os.environ)
    os.environ.update(values)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


@contextmanager
def _without_main() -> Iterator[None]:
    """Let multiprocessing not run the main module of this process again in those that it starts, which need none."""
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


def python_path() -> str:
    """Return the search path of this process, as PYTHONPATH."""
    return os.pathsep.join(entry or str(Path.cwd()) for entry in sys.path)


def _resident(pid: int | None) -> int:
    """Return the resident memory of a process and of those that it started, in bytes; 0 if it ended."""
    import psutil

    try:
        process = psutil.Process(pid)
        family = [process, *process.children(recursive=True)]
    except psutil.Error:
        return 0
    total = 0
    for one in family:
        with suppress(psutil.Error):
            total += one.memory_info().rss
    return total


def num_processors() -> int:
    """Return the number of processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _gpus() -> list[str]:
    """Return the names of the GPUs for CUDA_VISIBLE_DEVICES; without the driver of one, torch is not asked."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible == "" or (sys.platform == "linux" and not any(Path(device).exists() for device in _GPU_DEVICES)):
        return []
    import torch

    names = [str(index) for index in range(torch.cuda.device_count())]
    return visible.split(",")[: len(names)] if visible and names else names
