"""What a grid adds to its cells: cells that do nothing, large plans, long files of results.

Each cell has its job file, its process, its log, its result with a checksum, and its line in the results, as a real one
has; but it neither reads data nor builds a model. CPU time is that of this process and of all that it started.

python benchmarks/experiments/overhead.py [--cells 1000] [--workers 2]
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from umie.experiments.engines.base import Job, result_of
from umie.experiments.engines.processes import ProcessEngine, Unwatched
from umie.experiments.results import RESULTS, append_result, read_results, sealed
from umie.experiments.run_job import TRIVIAL

LINES = 100_000
SCORE = {"f1": 0.5, "precision": 0.5, "recall": 0.5, "interval": [0.4, 0.6], "dropped": 0, "gold": 10, "predicted": 9}
ANSWER = {
    "metrics": dict.fromkeys(("mner", "mre", "med", "meae"), SCORE),
    "health": {"visual_gradient": 0.1},
    "counts": {"train": {"queries": 10}, "test": {"queries": 10}},
    "parameters": 1_000_000,
    "uses_image": True,
    "device": "cpu",
    "threads": 1,
    "steps": 10,
}


def say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def cpu_s() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def run(folder: Path, count: int, workers: int) -> tuple[float, float]:
    """Return the seconds and the CPU seconds of a run of trivial cells."""
    jobs = []
    for number in range(count):
        values = {"kind": TRIVIAL, "identity": {"hash": f"{number:012x}", "seed": 0, "variant": "a"}, "answer": ANSWER}
        jobs.append(Job(str(number), folder / "cells" / f"{number:012x}", values))
    began, used = time.perf_counter(), cpu_s()
    for job, how in ProcessEngine(workers).run(jobs, Unwatched()):
        line = result_of(job, how)
        assert line["status"] == "ok", line
        append_result(folder / RESULTS, line)
    return time.perf_counter() - began, cpu_s() - used


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", type=int, default=1000)
    parser.add_argument("--workers", type=int, default=2)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        first_s, first_cpu_s = run(folder / "one", 1, arguments.workers)
        say(f"the server and one cell: {first_s:.1f} s, {first_cpu_s:.1f} CPU s")
        total_s, total_cpu_s = run(folder / "all", arguments.cells, arguments.workers)
        each = (total_cpu_s - first_cpu_s) / (arguments.cells - 1)
        wall = (total_s - first_s) / (arguments.cells - 1)
        say(
            f"{arguments.cells} cells, {arguments.workers} at a time: {total_s:.1f} s, {total_cpu_s:.1f} CPU s; "
            f"each further cell {1000 * wall:.0f} ms, {1000 * each:.0f} CPU ms"
        )
        before = cpu_s()
        subprocess.run([sys.executable, "-c", "import umie.experiments.engines.preload"], check=True)
        say(f"starting Python and importing the same modules: {cpu_s() - before:.1f} CPU s")

        line = {"status": "ok", "seed": 0, "variant": "a", **ANSWER, "seconds": {"total": 1.0}, "versions": {}}
        (folder / "many").mkdir()
        with (folder / "many" / RESULTS).open("w") as file:
            file.writelines(json.dumps(sealed({"hash": f"{n:012x}", **line})) + "\n" for n in range(LINES))
        names = {f"{number:012x}": "a" for number in range(LINES)}
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        began, used = time.perf_counter(), time.process_time()
        found = read_results(folder / "many", names, ("mner", "mre", "med", "meae"), repair=False)
        assert len(found) == LINES
        more = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak) / 1024
        seconds = time.perf_counter() - began
        say(
            f"{LINES:,} results are read in {seconds:.1f} s ({time.process_time() - used:.1f} CPU s) "
            f"with {more:.0f} MB more memory"
        )


if __name__ == "__main__":
    main()
