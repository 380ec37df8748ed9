"""Run a grid: first the warm starts, then the missing cells, with an engine."""

from __future__ import annotations

import re
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from umie.checkpoints import is_intact
from umie.errors import UmieError
from umie.experiments.data_sets import Corpus
from umie.experiments.engines import Inline, Processes, build_engine
from umie.experiments.engines.base import Engine, Job, result_of
from umie.experiments.estimate import shape_of
from umie.experiments.expand import Cell, Grid, plan
from umie.experiments.grid_file import write_grid_file
from umie.experiments.grid_run import GridRun, Selection
from umie.experiments.identity import locked, warm_start_hash
from umie.experiments.parts import ignored_media
from umie.experiments.prepare_data import prepare_corpus
from umie.experiments.results import RESULTS, append_result, cell_folder, read_results, results_of_others, sealed
from umie.experiments.scored_tasks import averaged, check_metric, scored_tasks
from umie.experiments.tally import Clock, GridProgress, Silent, Tally, unfinished

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
    if isinstance(grid.engine, Processes | Inline):  # the cells run on this machine
        from umie.training import slow_bfloat16

        if warning := slow_bfloat16([cell.config.training for cell in grid.cells]):
            progress.note(f"umie: warning: {warning}")
    return data, plan(grid, data.fingerprint)


def run_grid(
    grid: Grid,
    root: Path,
    output: Path,
    progress: GridProgress | None = None,
    *,
    selection: Selection | None = None,
    engine: Engine | None = None,
) -> GridRun:
    """Run the cells of a grid, whose parts were checked, that have no successful result in ``output`` yet.

    Paths under ``data`` are relative to ``root``. ``progress`` shows how far the grid is; by default nothing does.
    ``selection`` leaves some of the cells for later. ``engine`` runs the cells; by default it is that of the grid.
    Return the results of all cells, including those of earlier runs; a crashed cell has a traceback.

    Raises:
        UmieError: the data are invalid, or another run uses the directory.
    """
    progress = progress or Silent()
    engine = engine or engine_of(grid, output)
    with locked(output):
        data, cells = prepare(grid, root, output, progress)
        results = results_of(grid, data, cells, output, progress.note, tells_others=True)
        chosen = (selection or Selection()).of(cells, results)
        write_grid_file(GridRun(grid, data, cells, results), output)
        progress.cells(Tally(len(cells), len(cells) - len(unfinished(cells, results)), 0, len(chosen)))
        if chosen:
            Runner(grid, data, output, progress, engine, results).run(cells, chosen)
            results = results_of(grid, data, cells, output, progress.note)
        run = GridRun(grid, data, cells, results, {cell.hash for cell in chosen})
        write_grid_file(run, output, with_baselines=True)
        return run


def results_of(
    grid: Grid,
    data: Corpus,
    cells: Sequence[Cell],
    output: Path,
    note: Callable[[str], None],
    *,
    repair: bool = True,
    tells_others: bool = False,
) -> dict[str, dict[str, Any]]:
    """Return the newest result of each planned cell in ``output``, by hash; see ``read_results``.

    ``note`` is called with a sentence about each damaged line, and, with ``tells_others``, about results of cells that
    are not planned, e.g. from before an option was changed with --set.
    """

    def tell(others: int) -> None:
        found = results_of_others(others)
        note(
            f"umie: warning: {output} also has {found}: they are kept, but the table and the report will be without "
            "them; for a table of each, use another --output"
        )

    names = {cell.hash: f"{cell.variant}, seed {cell.seed}" for cell in cells}
    scored = [one.key for one in scored_tasks(grid.first, data)]
    if not tells_others:
        return read_results(output, names, scored, repair=repair, on_damage=note)
    return read_results(output, names, scored, repair=repair, on_damage=note, on_others=tell)


def engine_of(grid: Grid, output: Path) -> Engine:
    """Return the engine that the file of a grid names."""
    return build_engine(grid.engine, grid.workers, grid.limits, output)


class Runner:
    """Runner of the warm starts and the cells of a grid.

    Args:
        grid: the grid.
        data: its data.
        output: its directory.
        progress: the display.
        engine: what runs the jobs.
        results: the results that exist, by hash of the cell.
    """

    def __init__(
        self,
        grid: Grid,
        data: Corpus,
        output: Path,
        progress: GridProgress,
        engine: Engine,
        results: Mapping[str, Mapping[str, Any]],
    ) -> None:
        self.grid, self.data, self.output, self.progress, self.engine = grid, data, output, progress, engine
        self.results = results
        self.clock: Clock | None = None
        self.described_data = data.to_json()  # once, for all jobs

    def run(self, every: Sequence[Cell], cells: Sequence[Cell]) -> None:
        """Run some of all cells, appending each result as soon as it is available."""
        self.clock = Clock(every, cells, self.data, self.output, self.engine.workers, self.results)
        starts = self._warm_starts(cells)
        self.progress.cells(self.clock.tally())
        jobs = []
        for cell in cells:
            start = starts.get(cell.hash)
            if isinstance(start, dict):
                error = f"the warm start that this cell needs failed: {start['error']}"
                line = {**self._identity(cell), "status": "crashed", "error": error, "traceback": start["traceback"]}
                self._end(sealed(line))
            else:
                jobs.append(self.job_of(cell, start))
        with closing(self.each(jobs)) as lines:  # ends the jobs if this loop is interrupted
            for line in lines:
                self._end(line)

    def _end(self, line: _Line) -> None:
        assert self.clock is not None
        try:
            append_result(self.output / RESULTS, line)
        except UmieError as error:
            raise UmieError(f"{error}; finished cells keep their results: run the grid again to go on") from error
        self.progress.cells(self.clock.end(line))

    def each(self, jobs: Sequence[Job]) -> Generator[_Line]:
        """Run jobs, and yield their results in the order in which they end."""
        with closing(self.engine.run(jobs, self)) as ended:
            for job, how in ended:
                line = result_of(job, how)
                self.progress.finish(job.name, line)
                yield line

    def started(self, job: Job) -> None:
        """Show that a job started."""
        self.progress.start(job.name)
        if self.clock is not None:
            self.clock.begin(job.values["identity"]["hash"])

    def advanced(self, job: Job, phase: str, share: float) -> None:
        """Show the progress of a job."""
        self.progress.advance_job(job.name, phase, share)

    def _warm_starts(self, cells: Sequence[Cell]) -> dict[str, str | _Line]:
        """Train the warm starts that cells need; return their folders, or results if they crashed, by cell's hash."""
        warm_start = cells[0].config.warm_start  # only its data and its decoder can vary
        if warm_start is None:
            return {}
        names = {cell.hash: warm_start_hash(cell.config, self.data.fingerprint) for cell in cells}
        starts: dict[str, str | _Line] = {}
        jobs = []
        for cell in cells:
            name = names[cell.hash]
            folder = self.output / "warm_start" / name
            if name not in starts and not is_intact(folder):
                if folder.exists():
                    self.progress.note(f"{folder}: is damaged or incomplete: it is trained again")
                identity = {"hash": name, "variant": "warm start", "seed": warm_start.seed}
                title = "warm start" if len(set(names.values())) == 1 else f"warm start of {cell.variant}"
                values = {"kind": "warm_start", "identity": identity, "folder": str(folder), **self.described(cell)}
                jobs.append(Job(title, self.output / "warm_start" / f"{name}.log.d", values))
            starts.setdefault(name, str(folder))
        for line in self.each(jobs) if jobs else ():
            if line["status"] != "ok":
                starts[line["hash"]] = line
        return {own: starts[name] for own, name in names.items()}

    def job_of(self, cell: Cell, start: str | None) -> Job:
        """Return the job of a cell; ``start`` is the folder of its warm start."""
        folder = cell_folder(self.output, cell.hash)
        values = {
            "kind": "cell",
            "identity": self._identity(cell),
            "warm_start": start,
            "store": str(self.output / "features"),
            "folder": str(folder),
            **self.described(cell),
        }
        if trackers := self._trackers(cell):
            values["trackers"] = trackers
        return Job(f"{cell.variant}, seed {cell.seed}", folder, values)

    def described(self, cell: Cell) -> dict[str, Any]:
        """Return the config and the data of a cell for its job."""
        return {"config": cell.config.to_json(), "data": self.described_data}

    def _identity(self, cell: Cell) -> dict[str, Any]:
        identity = {"hash": cell.hash, "variant": cell.variant, "seed": cell.seed, "parts": cell.parts}
        return {**identity, "shape": shape_of(cell.config, self.data.fingerprint)}

    def _trackers(self, cell: Cell) -> dict[str, Any]:
        """Return where and under which name the training of a cell is logged; empty if it is not."""
        saving = cell.config.checkpoints
        names = list(dict.fromkeys([*self.grid.report_to, *(saving.report_to if saving is not None else ())]))
        safe = re.sub(r"[^\w.+-]+", "-", cell.variant).strip("-.")[:80]
        folder = self.output / "tensorboard" / f"{safe}-seed{cell.seed}-{cell.hash}"
        named = {"name": f"{cell.variant}, seed {cell.seed}", "group": self.grid.name, "folder": str(folder)}
        return {"report_to": names, **named} if names else {}
