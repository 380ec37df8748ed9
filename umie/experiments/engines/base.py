"""What runs the jobs of a grid: the interface of engines, and what they share."""

from __future__ import annotations

import os
import time
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from umie.errors import UmieError
from umie.experiments.results import RESULT, read_result, sealed
from umie.files import atomic_write, json_text

JOB = "job.json"  # in the directory of a job: what it ran
LOG = "log.txt"  # in the directory of a job: what it printed
NO_RESULT = "the job wrote no result"


@dataclass(frozen=True)
class Job:
    """A job of a grid: a cell, a warm start, or a few steps of either.

    Args:
        name: its name in the display.
        folder: its directory, which has JOB, LOG and RESULT.
        values: plain data, see ``umie.experiments.run_job``.
    """

    name: str
    folder: Path
    values: Mapping[str, Any]


class Watcher(Protocol):
    """What wants to know about jobs while they run."""

    def started(self, job: Job) -> None:
        """Note that a job started."""

    def advanced(self, job: Job, phase: str, share: float) -> None:
        """Note the phase of a job, and the finished share (0..1) of the phase."""


class Engine(Protocol):
    """A way to run jobs.

    Attributes:
        workers: number of jobs at the same time, as far as it is known.
    """

    workers: int

    def run(self, jobs: Sequence[Job], watcher: Watcher) -> Generator[tuple[Job, str]]:
        """Run jobs; yield each as soon as it ended, with how it ended in case that there is no RESULT in its directory.

        A job whose process dies or that is over a limit ends without a result; the others go on. Closing the generator
        ends the jobs that still run.
        """


def result_of(job: Job, how: str) -> dict[str, Any]:
    """Return the result of a job that ended; if it has none, it crashed: see ``how`` it ended, and what it printed."""
    path = job.folder / RESULT
    try:
        return read_result(path)
    except UmieError as error:
        crash = str(error) if path.exists() else how
        return sealed({**job.values["identity"], "status": "crashed", "error": crash, "traceback": _tail(job.folder)})


def _tail(folder: Path) -> str:
    """Return the end of the log of a job."""
    try:
        with (folder / LOG).open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - 4000))
            return file.read().decode("utf-8", errors="replace")
    except OSError:
        return ""


def begin(job: Job, num_threads: int | None) -> str:
    """Prepare the directory of a job; return its JOB as JSON text.

    Args:
        job: the job; an earlier result in its directory is removed.
        num_threads: the number of threads that it uses; None keeps that of its process.
    """
    job.folder.mkdir(parents=True, exist_ok=True)
    (job.folder / RESULT).unlink(missing_ok=True)
    values = {**job.values, "num_threads": num_threads, "result": str(job.folder / RESULT), "began": time.time()}
    text = json_text(values, indent=1, default=list)
    with atomic_write(job.folder / JOB) as file:
        file.write(text)
    return text
