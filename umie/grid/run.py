"""Running a grid: the warm start, then the cells that are missing, some at a time, each in its own process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

from filelock import FileLock, Timeout

from umie.errors import UmieError
from umie.files import atomic_write
from umie.grid.data import GridData, prepare_data
from umie.grid.plan import Cell, GridConfig, hash_of, plan_cells

RESULTS = "results.jsonl"


class Progress(Protocol):
    """What a display of the grid's progress must offer."""

    def preparing(self, what: str) -> None:
        """Say what is done before the first job."""

    def start(self, job: str) -> None:
        """A job begins."""

    def advance(self, job: str, phase: str, share: float) -> None:
        """A job is in a phase, of which a share (0..1) is done."""

    def finish(self, job: str, line: Mapping[str, Any]) -> None:
        """A job has ended with this result."""


@dataclass(frozen=True)
class GridRun:
    """A grid that has been run.

    Args:
        grid: its file.
        data: its data.
        cells: all planned cells.
        results: the newest result of each cell, by hash.
    """

    grid: GridConfig
    data: GridData
    cells: Sequence[Cell]
    results: Mapping[str, Mapping[str, Any]]

    @property
    def crashed(self) -> list[Cell]:
        """The cells without a good result."""
        return [cell for cell in self.cells if self.results.get(cell.hash, {}).get("status") != "ok"]


def prepare(grid: GridConfig, root: Path, output: Path, progress: Progress) -> tuple[GridData, list[Cell]]:
    """Check the data and plan the cells; raise UmieError if anything is wrong."""
    data = prepare_data(grid, root, output, progress.preparing)
    return data, plan_cells(grid, data.fingerprint)


def run_grid(grid: GridConfig, root: Path, output: Path, progress: Progress) -> GridRun:
    """Run the cells that have no good result yet.

    Args:
        grid: a checked grid.
        root: folder that relative paths of ``data`` start from.
        output: folder of data, results and logs; what is finished there is not run again.
        progress: told of every step.

    Returns:
        The results of all cells, of earlier runs too; a crashed cell has its traceback in it.

    Raises:
        UmieError: bad data; another run uses the folder; the warm start crashed.
    """
    output.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(output / ".lock", timeout=0):
            data, cells = prepare(grid, root, output, progress)
            results = read_results(output, cells)
            missing = [cell for cell in cells if results.get(cell.hash, {}).get("status") != "ok"]
            if missing:
                warm = _warm_start(grid, data, cells, output, progress)
                _run_cells(grid, data, missing, warm, output, progress)
            return GridRun(grid, data, cells, read_results(output, cells))
    except Timeout as error:
        raise UmieError(f"{output} is in use by another run: wait for it, or give another --output") from error


def read_results(output: Path, cells: Sequence[Cell]) -> dict[str, dict[str, Any]]:
    """Return the newest result of each planned cell; mend a file that a killed run left half written.

    A cell whose process had finished when the grid was killed is added to the file.
    """
    path = output / RESULTS
    lines = []
    torn = False
    if path.exists():
        for text in path.read_text(encoding="utf-8").splitlines():
            try:
                lines.append(json.loads(text))
            except json.JSONDecodeError:
                torn = True
    known = {(line["hash"], line["status"]) for line in lines}
    for cell in cells:
        left = _folder(output, cell) / "result.json"
        if (cell.hash, "ok") not in known and left.exists():
            line = json.loads(left.read_text(encoding="utf-8"))
            if line["status"] == "ok":
                lines.append(line)
                torn = True
    if torn:
        with atomic_write(path) as file:
            file.writelines(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
    planned = {cell.hash for cell in cells}
    return {line["hash"]: line for line in lines if line["hash"] in planned}


def num_workers(grid: GridConfig) -> int:
    """Return how many cells run at a time."""
    return grid.workers or max(1, _num_processors() // 2)


def _warm_start(
    grid: GridConfig, data: GridData, cells: Sequence[Cell], output: Path, progress: Progress
) -> dict[str, str]:
    """Train the text-only start of every decoder that the cells use; return its folder by the decoder's hash."""
    folders: dict[str, str] = {}
    if grid.warm_start is None:
        return folders
    for cell in cells:
        decoder = hash_of(cell.parts["decoder"])
        if decoder in folders:
            continue
        depends_on = {
            "decoder": cell.parts["decoder"],
            "warm_start": asdict(grid.warm_start),
            "tasks": data.tasks,
        }
        identity = hash_of({**depends_on, "data": data.fingerprint})
        folder = output / "warm_start" / identity
        folders[decoder] = str(folder)
        if folder.exists():
            continue
        job = {
            "kind": "warm_start",
            "identity": {"hash": identity, "variant": "warm start", "seed": grid.warm_start.seed},
            "parts": cell.parts,
            "training": grid.warm_start.training,
            "records": grid.warm_start.records,
            "folder": str(folder),
            "num_threads": _num_processors(),
        }
        line = _run_job(grid, data, job, output / "warm_start" / f"{identity}.log.d", "warm start", progress)
        if line["status"] != "ok":
            raise UmieError(f"the warm start crashed: {line['error']} (see {output / 'warm_start'})")
    return folders


def _run_cells(
    grid: GridConfig,
    data: GridData,
    cells: Sequence[Cell],
    warm: Mapping[str, str],
    output: Path,
    progress: Progress,
) -> None:
    """Run cells, ``workers`` at a time, and append each result as it comes."""
    workers = num_workers(grid)

    def run(cell: Cell) -> dict[str, Any]:
        parts = dict(cell.parts)
        folder = warm.get(hash_of(parts["decoder"]))
        if folder is not None:
            parts["decoder"] = {"name": parts["decoder"]["name"], "source": folder}
        job = {
            "kind": "cell",
            "identity": {"hash": cell.hash, "variant": cell.variant, "seed": cell.seed, "parts": cell.parts},
            "parts": parts,
            "training": cell.training,
            "evaluation": asdict(grid.evaluation),
            "missing_pictures": grid.missing_pictures,
            "folder": str(_folder(output, cell)),
            "num_threads": max(1, _num_processors() // workers),
        }
        return _run_job(grid, data, job, _folder(output, cell), f"{cell.variant}, seed {cell.seed}", progress)

    with ThreadPoolExecutor(workers) as pool:
        waiting: set[Future[dict[str, Any]]] = {pool.submit(run, cell) for cell in cells}
        try:
            while waiting:
                ended, waiting = wait(waiting, return_when=FIRST_COMPLETED)
                for future in ended:
                    _append(output / RESULTS, future.result())
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _run_job(
    grid: GridConfig, data: GridData, job: dict[str, Any], folder: Path, name: str, progress: Progress
) -> dict[str, Any]:
    """Run one job in a process of its own and return its result, a crash of the process too."""
    folder.mkdir(parents=True, exist_ok=True)
    result = folder / "result.json"
    result.unlink(missing_ok=True)
    job = {**job, "result": str(result), "plugins": list(grid.plugins), "data": asdict(data)}
    with atomic_write(folder / "job.json") as file:
        json.dump(job, file, indent=1, ensure_ascii=False, default=list)
    progress.start(name)
    with (folder / "log.txt").open("w", encoding="utf-8") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "umie.grid.cell", str(folder / "job.json")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            env={**os.environ, "TOKENIZERS_PARALLELISM": "false"},
        )
        try:
            _follow(process, log.write, lambda phase, share: progress.advance(name, phase, share))
            code = process.wait()
        except BaseException:
            process.kill()
            raise
    if result.exists():
        line: dict[str, Any] = json.loads(result.read_text(encoding="utf-8"))
    else:
        tail = (folder / "log.txt").read_text(encoding="utf-8", errors="replace")[-4000:]
        how = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
        line = {**job["identity"], "status": "crashed", "error": f"the process {how}", "traceback": tail}
    progress.finish(name, line)
    return line


def _follow(
    process: subprocess.Popen[str], log: Callable[[str], object], advance: Callable[[str, float], None]
) -> None:
    """Read the process's JSON lines until it ends; anything else it prints goes to the log."""
    if process.stdout is None:
        raise RuntimeError("the process was started without a pipe")
    for text in process.stdout:
        try:
            event = json.loads(text)
            if event["event"] == "progress":
                advance(event["phase"], event["done"] / event["total"])
        except (json.JSONDecodeError, KeyError, TypeError):
            log(text)


def _append(path: Path, line: Mapping[str, Any]) -> None:
    """Append one JSON line and see it onto the disk."""
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(line, ensure_ascii=False) + "\n")
        file.flush()
        os.fsync(file.fileno())


def _folder(output: Path, cell: Cell) -> Path:
    return output / "cells" / cell.hash


def _num_processors() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
