"""The engine ``slurm``: jobs run as an array of Slurm jobs, through submitit, on a file system that the nodes share."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from umie.errors import UmieError, import_extra
from umie.experiments.engines.base import Job, Watcher
from umie.experiments.engines.processes import num_processors, python_path, run_here, variables
from umie.experiments.limits import Limits
from umie.experiments.results import RESULT

if TYPE_CHECKING:
    from umie.experiments.engines import Slurm

POLL_S = 1.0
LATE_S = 15.0  # until a file that a node wrote is seen here
EXTRA_MIN = 5  # minutes that Slurm gives a job beyond its own limit, which then says what happened
EXTRA_GB = 1.0


class SlurmEngine:
    """Run each job as a Slurm job; see ``Engine``.

    On its node, a job runs as with the engine ``processes``: with the limits of a grid, and with a log of its own.

    Args:
        options: of the engine.
        folder: where submitit keeps its files.
        workers: number of jobs at the same time.
        limits: of a job.

    Raises:
        UmieError: submitit is not installed, or a job has no time limit, which Slurm needs.
    """

    def __init__(self, options: Slurm, folder: Path, workers: int | None, limits: Limits) -> None:
        import_extra("submitit", "slurm", "engine slurm")
        self.is_local = options.cluster == "local"
        if limits.time_s is None and not self.is_local:
            raise UmieError("engine slurm needs the time limit of a cell: set time_limit, e.g. time_limit: 2h")
        self.workers = workers or (max(1, num_processors() // 2) if self.is_local else 32)
        self.limits = limits
        self.num_threads = options.cpus_per_task or (max(1, num_processors() // self.workers) if self.is_local else 1)
        self.options, self.folder = options, folder

    def run(self, jobs: Sequence[Job], watcher: Watcher) -> Generator[tuple[Job, str]]:
        """Run jobs as an array; submitit's local executor, which starts all at once, gets them one by one."""
        executor = self._executor()
        waiting = deque(jobs)
        submitted: list[tuple[Job, Any]] = []
        started: set[Path] = set()
        try:
            while waiting or submitted:
                count = min(len(waiting), self.workers - len(submitted)) if self.is_local else len(waiting)
                if count:
                    submitted += self._submit(executor, [waiting.popleft() for _ in range(count)])
                for job, handle in list(submitted):
                    is_over = handle.done()
                    if job.folder not in started and (is_over or handle.state == "RUNNING"):
                        started.add(job.folder)
                        watcher.started(job)
                    if is_over:
                        submitted.remove((job, handle))
                        yield job, self._wait(job, handle)
                if submitted:
                    time.sleep(POLL_S)
        finally:
            for _, handle in submitted:
                handle.cancel(check=False)

    def _executor(self) -> Any:
        """Return submitit's executor, which makes its folder."""
        import submitit

        limits, options = self.limits, self.options
        minutes = 7 * 24 * 60 if limits.time_s is None else math.ceil(limits.time_s / 60) + EXTRA_MIN
        executor = submitit.AutoExecutor(folder=str(self.folder / "%j"), cluster=options.cluster)
        own = {} if self.is_local else {"slurm_array_parallelism": self.workers, **options.slurm_options}
        executor.update_parameters(
            name="umie",
            timeout_min=minutes,
            mem_gb=None if limits.memory_bytes is None else limits.memory_bytes / 1e9 + EXTRA_GB,
            cpus_per_task=self.num_threads,
            gpus_per_node=options.gpus_per_node,
            tasks_per_node=1,
            nodes=1,
            **own,
        )
        return executor

    def _submit(self, executor: Any, jobs: Sequence[Job]) -> list[tuple[Job, Any]]:
        for job in jobs:
            job.folder.mkdir(parents=True, exist_ok=True)
            (job.folder / RESULT).unlink(missing_ok=True)
        absolute = [Job(job.name, job.folder.absolute(), job.values) for job in jobs]
        with variables({"PYTHONPATH": python_path(), "PYTHONSAFEPATH": "1"}):
            count = len(jobs)
            handles = executor.map_array(run_here, absolute, [self.limits] * count, [self.num_threads] * count)
        return list(zip(jobs, handles, strict=True))

    def _wait(self, job: Job, handle: Any) -> str:
        """Wait for the result of a job that ended, which can be late on a shared file system; return how it ended."""
        state = str(handle.state)
        end = time.monotonic() + (LATE_S if state in ("COMPLETED", "FINISHED") else 0)
        while not (job.folder / RESULT).exists() and time.monotonic() < end:
            time.sleep(0.1)
        return f"its Slurm job {handle.job_id} ended with the state {state}"
