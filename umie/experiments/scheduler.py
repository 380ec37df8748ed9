"""Run a grid: first the warm starts, then the missing cells in parallel, each in its own process."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import redirect_stdout
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from queue import SimpleQueue
from typing import IO, Any, Protocol

from umie.checkpoints import is_intact
from umie.errors import UmieError
from umie.experiments.data_sets import Corpus
from umie.experiments.expand import Cell, Grid, plan
from umie.experiments.identity import locked, warm_start_hash
from umie.experiments.parts import ignored_media
from umie.experiments.prepare_data import prepare_corpus
from umie.experiments.results import RESULT, RESULTS, cell_folder, read_result, read_results, sealed
from umie.experiments.run_job import run_job
from umie.experiments.scored_tasks import ScoredTask, averaged, check_metric, measure_of, scored_tasks
from umie.files import atomic_write, check_writable, json_text


class GridProgress(Protocol):
    """Display of the progress of a grid."""

    def preparing(self, what: str) -> None:
        """Show a step before the first job."""

    def start(self, job: str) -> None:
        """Show that a job started."""

    def advance_job(self, job: str, phase: str, share: float) -> None:
        """Show the phase of a job, and the finished share (0..1) of the phase."""

    def finish(self, job: str, line: Mapping[str, Any]) -> None:
        """Show the result of a job."""

    def note(self, what: str) -> None:
        """Print a line."""


@dataclass(frozen=True)
class GridRun:
    """A finished grid: its data, all planned cells, and the latest result of each cell, by hash."""

    grid: Grid
    data: Corpus
    cells: Sequence[Cell]
    results: Mapping[str, Mapping[str, Any]]

    @cached_property
    def scored(self) -> list[ScoredTask]:
        """The scored tasks, which are the same for all cells."""
        return scored_tasks(self.grid.first, self.data)

    @cached_property
    def mean_over(self) -> list[str]:
        """The keys that the table averages."""
        return averaged(self.grid.first, self.scored)

    @cached_property
    def ceilings(self) -> dict[str, float]:
        """The best F1 without images, by key, if the distribution is known."""
        known = {one.key: self.data.sets[one.data_set].ceilings.get(one.task) for one in self.scored}
        return {key: ceiling for key, ceiling in known.items() if ceiling is not None}

    @cached_property
    def baselines(self) -> dict[str, tuple[str, float]]:
        """The baseline without a model of each scored task, by key: what it answers, and its F1."""
        from umie.scoring import baseline_score

        split, read = self.grid.first.evaluation.split, cache(lambda one, split: self.data.sets[one].read(split))
        found = {}
        for one in self.scored:
            files = self.data.sets[one.data_set].files
            if split in files:
                train = read(one.data_set, "train") if "train" in files else None
                measure = measure_of(self.grid.first, one.task)
                found[one.key] = baseline_score(one.task, read(one.data_set, split), train, measure)
        return found

    @property
    def crashed(self) -> list[Cell]:
        """The cells without a successful result."""
        return _unfinished(self.cells, self.results)


def prepare(grid: Grid, root: Path, output: Path, progress: GridProgress) -> tuple[Corpus, list[Cell]]:
    """Check the data and plan the cells; raise UmieError if the data or the grid is invalid."""
    first = grid.first
    dev = ["dev"] if first.checkpoints is not None else []
    data = prepare_corpus(
        first.data,
        root=root,
        output=output,
        splits=tuple(dict.fromkeys(["train", *dev, first.evaluation.split])),
        missing_images=first.missing_images,
        encoders=list({repr(cell.config.encoder): cell.config.encoder for cell in grid.cells}.values()),
        on_item=progress.preparing,
    )
    averaged(first, scored_tasks(first, data))
    check_metric(first, data)
    for cell in grid.cells:
        if not data.training_sets(cell.config.trained_on):
            raise UmieError(f"{cell.variant}: none of the data sets of train_on has training records")
    for line in ignored_media({cell.variant: cell.config for cell in grid.cells}, data):
        progress.note(f"umie: warning: {line}")
    return data, plan(grid, data.fingerprint)


def run_grid(grid: Grid, root: Path, output: Path, progress: GridProgress, *, in_process: bool = False) -> GridRun:
    """Run the cells of a grid, whose parts were checked, that have no successful result in ``output`` yet.

    Paths under ``data`` are relative to ``root``. ``in_process`` runs the cells sequentially in this process instead of
    each in its own. Return the results of all cells, including those of earlier runs; a crashed cell has a traceback.

    Raises:
        UmieError: the data are invalid, or another run uses the directory.
    """
    with locked(output):
        data, cells = prepare(grid, root, output, progress)
        missing = _unfinished(cells, results_of(grid, data, cells, output, progress.note))
        if missing:
            _Runner(grid, data, output, progress, in_process).run(missing)
        return GridRun(grid, data, cells, results_of(grid, data, cells, output, progress.note))


def results_of(
    grid: Grid,
    data: Corpus,
    cells: Sequence[Cell],
    output: Path,
    on_damage: Callable[[str], None],
    *,
    repair: bool = True,
) -> dict[str, dict[str, Any]]:
    """Return the newest result of each planned cell in ``output``, by hash; see ``read_results``."""
    names = {cell.hash: f"{cell.variant}, seed {cell.seed}" for cell in cells}
    scored = [one.key for one in scored_tasks(grid.first, data)]
    return read_results(output, names, scored, repair=repair, on_damage=on_damage)


class _Runner:
    """Runner of the warm starts and the cells of a grid."""

    def __init__(self, grid: Grid, data: Corpus, output: Path, progress: GridProgress, in_process: bool) -> None:
        self.data, self.output, self.progress, self.in_process = data, output, progress, in_process
        self.workers = 1 if in_process else grid.workers or len(_gpus()) or max(1, _num_processors() // 2)
        self.processes: set[subprocess.Popen[str]] = set()
        self.slots: SimpleQueue[int] = SimpleQueue()
        for slot in range(self.workers):
            self.slots.put(slot)

    def run(self, cells: Sequence[Cell]) -> None:
        """Run cells, appending each result as soon as it is available."""
        starts = self._warm_starts(cells)
        with ThreadPoolExecutor(self.workers) as pool:
            try:
                futures = [pool.submit(self._run_cell, cell, starts.get(cell.hash)) for cell in cells]
                for future in as_completed(futures):
                    _append(self.output / RESULTS, future.result())
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                for process in list(self.processes):  # only this thread receives an interrupt
                    process.kill()
                raise

    def _warm_starts(self, cells: Sequence[Cell]) -> dict[str, str | dict[str, Any]]:
        """Train the warm starts that cells need; return their folders, or results if they crashed, by cell's hash."""
        warm_start = cells[0].config.warm_start  # only its data and its decoder can vary
        if warm_start is None:
            return {}
        names = {cell.hash: warm_start_hash(cell.config, self.data.fingerprint) for cell in cells}
        starts: dict[str, str | dict[str, Any]] = {}
        for cell in cells:
            name = names[cell.hash]
            folder = self.output / "warm_start" / name
            if name not in starts and not is_intact(folder):
                if folder.exists():
                    self.progress.note(f"{folder}: is damaged or incomplete: it is trained again")
                identity = {"hash": name, "variant": "warm start", "seed": warm_start.seed}
                job = {"kind": "warm_start", "identity": identity, "folder": str(folder)}
                title = "warm start" if len(set(names.values())) == 1 else f"warm start of {cell.variant}"
                line = self._run_job(cell, job, self.output / "warm_start" / f"{name}.log.d", title, 0)
                if line["status"] != "ok":
                    starts[name] = line
            starts.setdefault(name, str(folder))
        return {own: starts[name] for own, name in names.items()}

    def _run_cell(self, cell: Cell, start: str | dict[str, Any] | None) -> dict[str, Any]:
        identity = {"hash": cell.hash, "variant": cell.variant, "seed": cell.seed, "parts": cell.parts}
        if isinstance(start, dict):
            error = f"the warm start that this cell needs crashed: {start['error']}"
            return sealed({**identity, "status": "crashed", "error": error, "traceback": start["traceback"]})
        folder = cell_folder(self.output, cell.hash)
        store = str(self.output / "features")
        job = {"kind": "cell", "identity": identity, "warm_start": start, "store": store, "folder": str(folder)}
        slot = self.slots.get()
        try:
            return self._run_job(cell, job, folder, f"{cell.variant}, seed {cell.seed}", slot)
        finally:
            self.slots.put(slot)

    def _run_job(self, cell: Cell, job: Mapping[str, Any], folder: Path, name: str, slot: int) -> dict[str, Any]:
        """Run one job and return its result, even if its process crashed."""
        folder.mkdir(parents=True, exist_ok=True)
        result = folder / RESULT
        result.unlink(missing_ok=True)
        written = {
            **job,
            "config": cell.config.to_json(),
            "data": self.data.to_json(),
            "num_threads": None if self.in_process else max(1, _num_processors() // self.workers),
            "result": str(result),
        }
        with atomic_write(folder / "job.json") as file:
            file.write(json_text(written, indent=1, default=list))
        self.progress.start(name)
        if self.in_process:
            crash = "the job wrote no result"
            (folder / "log.txt").touch()
            with redirect_stdout(io.StringIO()):
                run_job(str(folder / "job.json"))
        else:
            crash = self._in_a_process(folder, name, slot)
        try:
            line = read_result(result)
        except UmieError as error:
            tail = (folder / "log.txt").read_text(encoding="utf-8", errors="replace")[-4000:]
            crash = str(error) if result.exists() else crash
            line = sealed({**job["identity"], "status": "crashed", "error": crash, "traceback": tail})
        self.progress.finish(name, line)
        return line

    def _in_a_process(self, folder: Path, name: str, slot: int) -> str:
        """Run the job of a directory in its own process; return how it ended, in case there is no result."""
        gpus = _gpus()
        gpu = {"CUDA_VISIBLE_DEVICES": gpus[slot % len(gpus)]} if gpus else {}
        with check_writable(folder / "log.txt").open("w", encoding="utf-8") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "umie.experiments.job_process", str(folder / "job.json")],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                encoding="utf-8",
                errors="replace",
                env={**os.environ, "TOKENIZERS_PARALLELISM": "false", "PYTHONUTF8": "1", **gpu},
            )
            self.processes.add(process)
            with process:  # closes the pipes
                try:
                    assert process.stdout is not None  # a pipe
                    for text in process.stdout:
                        self._show(text, name, log)
                    code = process.wait()
                except BaseException:
                    process.kill()
                    raise
                finally:
                    self.processes.discard(process)
        how = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
        return f"the process {how}"

    def _show(self, text: str, name: str, log: IO[str]) -> None:
        """Show the progress in a JSON line of a job; write notes and any other output to the log."""
        try:
            event = json.loads(text)
            if event["event"] == "progress":
                self.progress.advance_job(name, event["phase"], event["done"] / event["total"])
            elif event["event"] == "note":
                log.write(event["text"] + "\n")
        except (json.JSONDecodeError, KeyError, TypeError):
            log.write(text)


def _append(path: Path, line: Mapping[str, Any]) -> None:
    """Append one JSON line and sync it to disk."""
    with check_writable(path).open("a", encoding="utf-8") as file:
        file.write(json_text(line) + "\n")
        file.flush()
        os.fsync(file.fileno())


def _unfinished(cells: Sequence[Cell], results: Mapping[str, Mapping[str, Any]]) -> list[Cell]:
    return [cell for cell in cells if results.get(cell.hash, {}).get("status") != "ok"]


def _num_processors() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _gpus() -> list[str]:
    """Return the names of the available GPUs for CUDA_VISIBLE_DEVICES."""
    import torch

    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = [str(index) for index in range(torch.cuda.device_count())]
    return visible.split(",")[: len(names)] if visible and names else names
