"""Running a grid: the warm start, then the cells that are missing, some at a time, each in its own process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from queue import SimpleQueue
from typing import Any, Protocol

from filelock import FileLock, Timeout

import umie
from umie.errors import UmieError
from umie.experiments.data_sets import Corpus, hash_of
from umie.experiments.grid_config import GridConfig
from umie.experiments.parts import files_of, without_label
from umie.experiments.plan import Cell, plan_cells
from umie.experiments.prepare_data import prepare_corpus
from umie.experiments.scored_tasks import Asked, asked, averaged
from umie.files import atomic_write

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
    data: Corpus
    cells: Sequence[Cell]
    results: Mapping[str, Mapping[str, Any]]

    @cached_property
    def asked(self) -> list[Asked]:
        """All that every cell is scored on."""
        return asked(self.grid, self.data)

    @cached_property
    def mean_over(self) -> list[str]:
        """The keys of what the table averages."""
        return averaged(self.grid, self.asked)

    @cached_property
    def ceilings(self) -> dict[str, float]:
        """The ceiling of text alone of all that is scored, by key, where the distribution is known."""
        known = {one.key: self.data.sets[one.data_set].ceilings.get(one.task) for one in self.asked}
        return {key: ceiling for key, ceiling in known.items() if ceiling is not None}

    @property
    def crashed(self) -> list[Cell]:
        """The cells without a good result."""
        return [cell for cell in self.cells if self.results.get(cell.hash, {}).get("status") != "ok"]


def prepare(grid: GridConfig, root: Path, output: Path, progress: Progress) -> tuple[Corpus, list[Cell]]:
    """Check the data and plan the cells; raise UmieError if anything is wrong."""
    data = prepare_corpus(
        grid.data,
        grid.tasks,
        root=root,
        output=output,
        splits=("train", grid.evaluation.split),
        missing_images=grid.missing_images,
        encoders=[without_label(encoder) for encoder in grid.encoder],
        on_item=progress.preparing,
    )
    averaged(grid, asked(grid, data))
    for choice in grid.train_on:
        if not data.trained(choice.sets):
            raise UmieError(f"train_on {choice.label!r}: none of its data sets has training records")
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


def read_results(output: Path, cells: Sequence[Cell], *, mend: bool = True) -> dict[str, dict[str, Any]]:
    """Return the newest result of each planned cell.

    A last line that a killed run left half written is passed over, and a cell whose process had finished by then
    is added; ``mend`` writes that to the file, which only the holder of the folder's lock may.
    """
    path = output / RESULTS
    lines = []
    torn = False
    if path.exists():
        *texts, rest = path.read_bytes().split(b"\n")
        torn = bool(rest)  # without its end, the next line would grow together with it
        for text in [*texts, rest] if rest else texts:
            try:
                lines.append(json.loads(text))
            except ValueError:  # not JSON, or not UTF-8
                torn = True
    known = {(line["hash"], line["status"]) for line in lines}
    for cell in cells:
        left = _folder(output, cell) / "result.json"
        if (cell.hash, "ok") not in known and left.exists():
            line = json.loads(left.read_text(encoding="utf-8"))
            if line["status"] == "ok":
                lines.append(line)
                torn = True
    if torn and mend:
        with atomic_write(path) as file:
            file.writelines(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
    planned = {cell.hash for cell in cells}
    return {line["hash"]: line for line in lines if line["hash"] in planned}


def num_workers(grid: GridConfig) -> int:
    """Return how many cells run at a time: by default one a GPU, or one for every two processors."""
    return grid.workers or len(_gpus()) or max(1, _num_processors() // 2)


def _warm_start(
    grid: GridConfig, data: Corpus, cells: Sequence[Cell], output: Path, progress: Progress
) -> dict[str, str | dict[str, Any]]:
    """Train the text-only start of every decoder that the cells use, on the data sets and wording of each cell.

    Returns:
        By the hash of these three the folder of its start, or the result of its crash.
    """
    starts: dict[str, str | dict[str, Any]] = {}
    if grid.warm_start is None:
        return starts
    keys = {_start_of(cell) for cell in cells}
    for cell in cells:
        start = _start_of(cell)
        if start in starts:
            continue
        depends_on = {
            "decoder": cell.parts["decoder"],
            "train_on": cell.train_on,  # a set that is left out must not come in by the warm start
            "instruction": cell.instruction,
            "warm_start": asdict(grid.warm_start),
            "tasks": list(grid.tasks.items()),
            "files": files_of(grid, {"decoder": cell.parts["decoder"]}),
            "umie": umie.__version__,
        }
        identity = hash_of({**depends_on, "data": data.fingerprint})
        folder = output / "warm_start" / identity
        starts[start] = str(folder)
        if folder.exists():
            continue
        job = {
            "kind": "warm_start",
            "identity": {"hash": identity, "variant": "warm start", "seed": grid.warm_start.seed},
            "parts": cell.parts,
            "train_on": cell.train_on,
            "instruction": cell.instruction,
            "training": grid.warm_start.training,
            "records": grid.warm_start.records,
            "folder": str(folder),
            "num_threads": max(1, _num_processors() // num_workers(grid)),
        }
        name = "warm start" if len(keys) == 1 else f"warm start of {cell.variant}"
        line = _run_job(grid, data, job, output / "warm_start" / f"{identity}.log.d", name, progress)
        if line["status"] != "ok":
            starts[start] = line
    return starts


def _start_of(cell: Cell) -> str:
    """Return what tells the warm start of a cell from others."""
    return hash_of([cell.parts["decoder"], cell.train_on, cell.instruction])


def _run_cells(
    grid: GridConfig,
    data: Corpus,
    cells: Sequence[Cell],
    starts: Mapping[str, str | dict[str, Any]],
    output: Path,
    progress: Progress,
) -> None:
    """Run cells, ``workers`` at a time, and append each result as it comes."""
    workers = num_workers(grid)
    slots: SimpleQueue[int] = SimpleQueue()
    for slot in range(workers):
        slots.put(slot)
    processes: set[subprocess.Popen[str]] = set()

    def run(cell: Cell) -> dict[str, Any]:
        identity = {"hash": cell.hash, "variant": cell.variant, "seed": cell.seed, "parts": cell.parts}
        parts = dict(cell.parts)
        start = starts.get(_start_of(cell))
        if isinstance(start, dict):
            error = f"the warm start that this cell needs crashed: {start['error']}"
            return {**identity, "status": "crashed", "error": error, "traceback": start["traceback"]}
        if start is not None:
            parts["decoder"] = {"name": parts["decoder"]["name"], "source": start}
        job = {
            "kind": "cell",
            "identity": identity,
            "parts": parts,
            "train_on": cell.train_on,
            "instruction": cell.instruction,
            "training": cell.training,
            "evaluation": asdict(grid.evaluation),
            "asked": [asdict(one) for one in asked(grid, data)],
            "missing_images": grid.missing_images,
            "features": {**asdict(grid.features), "folder": grid.features.folder or str(output / "features")},
            "folder": str(_folder(output, cell)),
            "num_threads": max(1, _num_processors() // workers),
        }
        slot = slots.get()
        try:
            name = f"{cell.variant}, seed {cell.seed}"
            return _run_job(grid, data, job, _folder(output, cell), name, progress, slot, processes)
        finally:
            slots.put(slot)

    with ThreadPoolExecutor(workers) as pool:
        waiting: set[Future[dict[str, Any]]] = {pool.submit(run, cell) for cell in cells}
        try:
            while waiting:
                ended, waiting = wait(waiting, return_when=FIRST_COMPLETED)
                for future in ended:
                    _append(output / RESULTS, future.result())
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            for process in list(processes):  # an interrupt reaches this thread alone
                process.kill()
            raise


def _run_job(
    grid: GridConfig,
    data: Corpus,
    job: dict[str, Any],
    folder: Path,
    name: str,
    progress: Progress,
    slot: int = 0,
    processes: set[subprocess.Popen[str]] | None = None,
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
            [sys.executable, "-m", "umie.experiments.job", str(folder / "job.json")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            encoding="utf-8",
            errors="replace",
            env={**os.environ, "TOKENIZERS_PARALLELISM": "false", "PYTHONUTF8": "1", **_one_gpu(slot)},
        )
        running = set() if processes is None else processes
        running.add(process)
        with process:  # closes the pipes
            try:
                _follow(process, log.write, lambda phase, share: progress.advance(name, phase, share))
                code = process.wait()
            except BaseException:
                process.kill()
                raise
            finally:
                running.discard(process)
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


def _gpus() -> list[str]:
    """Return the names by which CUDA_VISIBLE_DEVICES can choose the GPUs at hand."""
    import torch

    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = [str(index) for index in range(torch.cuda.device_count())]
    return visible.split(",")[: len(names)] if visible and names else names


def _one_gpu(slot: int) -> dict[str, str]:
    """Return the environment that gives a worker one GPU, so that no training spreads over several."""
    gpus = _gpus()
    return {"CUDA_VISIBLE_DEVICES": gpus[slot % len(gpus)]} if gpus else {}
