"""Run a grid: first the warm starts, then the missing cells in parallel, each in its own process."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from contextlib import closing, contextmanager, redirect_stdout
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from typing import IO, Any

from umie.checkpoints import is_intact
from umie.errors import UmieError
from umie.experiments.data_sets import Corpus
from umie.experiments.estimate import shape_of
from umie.experiments.expand import Cell, Grid, plan
from umie.experiments.grid_file import write_grid_file
from umie.experiments.grid_run import GridRun, Selection
from umie.experiments.identity import locked, warm_start_hash
from umie.experiments.parts import ignored_media
from umie.experiments.prepare_data import prepare_corpus
from umie.experiments.results import RESULT, RESULTS, append_result, cell_folder, read_result, read_results, sealed
from umie.experiments.run_job import run_job as execute
from umie.experiments.scored_tasks import averaged, check_metric, scored_tasks
from umie.experiments.tally import Clock, GridProgress, Tally, unfinished
from umie.files import atomic_write, check_writable, json_text

_Line = dict[str, Any]  # the result of a cell or another job


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


def run_grid(
    grid: Grid,
    root: Path,
    output: Path,
    progress: GridProgress,
    *,
    selection: Selection | None = None,
    in_process: bool = False,
) -> GridRun:
    """Run the cells of a grid, whose parts were checked, that have no successful result in ``output`` yet.

    Paths under ``data`` are relative to ``root``. ``selection`` leaves some of the cells for later. ``in_process`` runs
    the cells sequentially in this process instead of each in its own. Return the results of all cells, including those
    of earlier runs; a crashed cell has a traceback.

    Raises:
        UmieError: the data are invalid, or another run uses the directory.
    """
    with locked(output):
        data, cells = prepare(grid, root, output, progress)
        results = results_of(grid, data, cells, output, progress.note)
        chosen = (selection or Selection()).of(cells, results)
        write_grid_file(GridRun(grid, data, cells, results), output)
        progress.cells(Tally(len(cells), len(cells) - len(unfinished(cells, results)), 0, len(chosen)))
        if chosen:
            Runner(grid, data, output, progress, in_process, results).run(cells, chosen)
            results = results_of(grid, data, cells, output, progress.note)
        run = GridRun(grid, data, cells, results)
        write_grid_file(run, output, with_baselines=True)
        return run


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


class Runner:
    """Runner of the warm starts and the cells of a grid."""

    def __init__(
        self,
        grid: Grid,
        data: Corpus,
        output: Path,
        progress: GridProgress,
        in_process: bool,
        results: Mapping[str, Mapping[str, Any]],
    ) -> None:
        self.data, self.output, self.progress, self.in_process = data, output, progress, in_process
        self.grid, self.results = grid, dict(results)
        self.workers = num_workers(grid, in_process=in_process)
        self.is_stopped = False
        self.processes: set[subprocess.Popen[str]] = set()
        self.slots: SimpleQueue[int] = SimpleQueue()
        for slot in range(self.workers):
            self.slots.put(slot)

    def run(self, every: Sequence[Cell], cells: Sequence[Cell]) -> None:
        """Run some of all cells, appending each result as soon as it is available."""
        clock = Clock(every, cells, self.data, self.output, self.workers)
        starts = self._warm_starts(cells)
        self.progress.cells(clock.tally(self.results))
        jobs = [partial(self._run_cell, cell, starts.get(cell.hash), clock) for cell in cells]
        with closing(self.each(jobs)) as lines:  # ends the jobs if this loop is interrupted
            for line in lines:
                append_result(self.output / RESULTS, line)
                self.results[line["hash"]] = line
                clock.end(line)
                self.progress.cells(clock.tally(self.results))

    def each(self, jobs: Sequence[Callable[[], _Line]]) -> Generator[_Line]:
        """Run jobs with the workers, and yield their results in the order in which they end."""
        if self.in_process:  # an interrupt reaches only the main thread
            yield from (job() for job in jobs)
            return
        with ThreadPoolExecutor(self.workers) as pool:
            try:
                futures: list[Future[_Line]] = [pool.submit(job) for job in jobs]
                for future in as_completed(futures):
                    yield future.result()
            except BaseException:
                self.is_stopped = True
                pool.shutdown(wait=False, cancel_futures=True)
                for process in list(self.processes):
                    process.kill()
                raise

    def _warm_starts(self, cells: Sequence[Cell]) -> dict[str, str | _Line]:
        """Train the warm starts that cells need; return their folders, or results if they crashed, by cell's hash."""
        warm_start = cells[0].config.warm_start  # only its data and its decoder can vary
        if warm_start is None:
            return {}
        names = {cell.hash: warm_start_hash(cell.config, self.data.fingerprint) for cell in cells}
        starts: dict[str, str | _Line] = {}
        for cell in cells:
            name = names[cell.hash]
            folder = self.output / "warm_start" / name
            if name not in starts and not is_intact(folder):
                if folder.exists():
                    self.progress.note(f"{folder}: is damaged or incomplete: it is trained again")
                identity = {"hash": name, "variant": "warm start", "seed": warm_start.seed}
                job = {"kind": "warm_start", "identity": identity, "folder": str(folder)}
                title = "warm start" if len(set(names.values())) == 1 else f"warm start of {cell.variant}"
                line = self.run_job(cell, job, self.output / "warm_start" / f"{name}.log.d", title, 0)
                if line["status"] != "ok":
                    starts[name] = line
            starts.setdefault(name, str(folder))
        return {own: starts[name] for own, name in names.items()}

    def _run_cell(self, cell: Cell, start: str | _Line | None, clock: Clock) -> _Line:
        identity = {"hash": cell.hash, "variant": cell.variant, "seed": cell.seed, "parts": cell.parts}
        identity["shape"] = shape_of(cell.config, self.data.fingerprint)
        if isinstance(start, dict):
            error = f"the warm start that this cell needs crashed: {start['error']}"
            return sealed({**identity, "status": "crashed", "error": error, "traceback": start["traceback"]})
        folder = cell_folder(self.output, cell.hash)
        store = str(self.output / "features")
        job = {"kind": "cell", "identity": identity, "warm_start": start, "store": store, "folder": str(folder)}
        if trackers := self._trackers(cell):
            job["trackers"] = trackers
        with self.slot() as slot:
            clock.begin(cell)
            return self.run_job(cell, job, folder, f"{cell.variant}, seed {cell.seed}", slot)

    @contextmanager
    def slot(self) -> Iterator[int]:
        """Hold the number of a worker."""
        slot = self.slots.get()
        try:
            yield slot
        finally:
            self.slots.put(slot)

    def _trackers(self, cell: Cell) -> dict[str, Any]:
        """Return where and under which name the training of a cell is logged; empty if it is not."""
        saving = cell.config.checkpoints
        names = list(dict.fromkeys([*self.grid.report_to, *(saving.report_to if saving is not None else ())]))
        safe = re.sub(r"[^\w.+-]+", "-", cell.variant).strip("-.")[:80]
        folder = self.output / "tensorboard" / f"{safe}-seed{cell.seed}-{cell.hash}"
        named = {"name": f"{cell.variant}, seed {cell.seed}", "group": self.grid.name, "folder": str(folder)}
        return {"report_to": names, **named} if names else {}

    def run_job(self, cell: Cell, job: Mapping[str, Any], folder: Path, name: str, slot: int) -> _Line:
        """Run one job and return its result, even if its process crashed."""
        folder.mkdir(parents=True, exist_ok=True)
        result = folder / RESULT
        result.unlink(missing_ok=True)
        written = {
            "config": cell.config.to_json(),
            "data": self.data.to_json(),
            **job,
            "num_threads": None if self.in_process else max(1, _num_processors() // self.workers),
            "result": str(result),
            "began": time.time(),
        }
        with atomic_write(folder / "job.json") as file:
            file.write(json_text(written, indent=1, default=list))
        self.progress.start(name)
        if self.in_process:
            crash = "the job wrote no result"
            (folder / "log.txt").touch()
            with redirect_stdout(io.StringIO()):
                execute(str(folder / "job.json"))
        else:
            crash = self._in_a_process(folder, name, slot)
        if self.is_stopped:
            raise _StoppedError(name)
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
                start_new_session=True,  # an interrupt on the terminal is for the grid, which ends its cells
                env={**os.environ, "TOKENIZERS_PARALLELISM": "false", "PYTHONUTF8": "1", **gpu},
            )
            self.processes.add(process)
            if self.is_stopped:  # it was started while the others were ended
                process.kill()
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


class _StoppedError(Exception):
    """A job was ended because the grid was interrupted; it neither finished nor crashed."""


def num_workers(grid: Grid, *, in_process: bool = False) -> int:
    """Return the number of cells that run at the same time."""
    return 1 if in_process else grid.workers or len(_gpus()) or max(1, _num_processors() // 2)


def _num_processors() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _gpus() -> list[str]:
    """Return the names of the available GPUs for CUDA_VISIBLE_DEVICES."""
    import torch

    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = [str(index) for index in range(torch.cuda.device_count())]
    return visible.split(",")[: len(names)] if visible and names else names
