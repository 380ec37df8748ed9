"""A grid whose cells do nothing, but everything around them is real.

``python trivial_grid.py GRID OUTPUT STARTED [ENGINE]``. The names of cells that start are appended to the file STARTED.
"""

import sys
from dataclasses import replace
from pathlib import Path

from umie.experiments import scheduler
from umie.experiments.engines import build_engine, read_engine
from umie.experiments.expand import read_grid
from umie.experiments.limits import Limits
from umie.experiments.run_job import TRIVIAL


class TrivialRunner(scheduler.Runner):
    """A runner whose cells do nothing; their scores depend on their seeds."""

    def job_of(self, cell, start):
        share = (cell.seed * 7919 % 1000) / 1000
        answer = {
            "metrics": {"mner": {"f1": share, "precision": share, "recall": share, "interval": [0, 1], "dropped": 0}},
            "health": {},
            "counts": {"train": {}, "test": {}},
            "parameters": 1,
            "uses_image": False,
            "device": "cpu",
            "threads": 1,
            "steps": 1,
            "seconds": {"train": 0.0},
        }
        job = super().job_of(cell, start)
        return replace(job, values={**job.values, "kind": TRIVIAL, "answer": answer})


class StartLog:
    """A progress display that writes the names of the jobs that start to a file."""

    def __init__(self, path):
        self.path = path

    def start(self, job):
        with self.path.open("a") as file:
            file.write(f"{job}\n")

    def preparing(self, what):
        pass

    def cells(self, tally):
        pass

    def advance_job(self, job, phase, share):
        pass

    def finish(self, job, line):
        pass

    def note(self, what):
        pass


def run(grid: Path, output: Path, started: Path, engine=None):
    """Run the grid, by default in processes."""
    scheduler.Runner = TrivialRunner
    return scheduler.run_grid(read_grid(grid), grid.parent, output, StartLog(started), engine=engine)


if __name__ == "__main__":
    grid, output, started = map(Path, sys.argv[1:4])
    run(grid, output, started, build_engine(read_engine(sys.argv[4]), 2, Limits(), output) if sys.argv[4:] else None)
