"""The plan of a grid: its cells and their states, the work that they share, and what they will cost."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from umie.checkpoints import is_intact
from umie.experiments.calibration import calibration_job, sample_of
from umie.experiments.config import RunConfig
from umie.experiments.data_sets import Corpus
from umie.experiments.engines.base import Engine, Job
from umie.experiments.estimate import (
    RANDOM_TEXT,
    Cost,
    Estimate,
    estimate,
    has_random_frozen_text_encoder,
    known_costs,
    num_queries,
    shape_of,
    stored_encoders,
    stores_texts,
    write_calibration,
)
from umie.experiments.expand import Cell, Grid
from umie.experiments.grid_run import Selection
from umie.experiments.identity import check_output, locked, warm_start_hash
from umie.experiments.parts import unnamed_places
from umie.experiments.scheduler import Runner, engine_of, prepare, results_of
from umie.experiments.tally import GridProgress
from umie.experiments.training_queries import plan_queries
from umie.files import json_text

# what the tokens of training queries depend on
_TOKENIZING = ("decoder", "trained_on", "wording", "max_input_tokens", "max_target_tokens", "start_from")


@dataclass(frozen=True)
class Shared:
    """Work that is done once for several cells."""

    what: str
    num_cells: int
    is_done: bool


@dataclass(frozen=True)
class Plan:
    """What running a grid means."""

    corpus: Corpus
    cells: Sequence[Cell]
    results: Mapping[str, Mapping[str, Any]]  # those that exist, by hash
    chosen: Sequence[Cell]  # the cells that would run
    shared: Sequence[Shared]
    estimate: Estimate
    workers: int
    unknown_starts: int  # warm starts that nothing is known about
    warnings: Sequence[str]
    failed: Sequence[str]  # why a calibration gave no result


def plan_grid(
    grid: Grid,
    root: Path,
    output: Path,
    progress: GridProgress,
    *,
    selection: Selection | None = None,
    calibrate: bool = False,
    engine: Engine | None = None,
) -> Plan:
    """Check the data of a grid and plan its cells; nothing is written.

    ``calibrate`` runs a few steps of one cell of each shape whose cost is not known, and of each warm start, and keeps
    what was measured in ``output``. The other arguments are those of ``run_grid``.

    Raises:
        UmieError: the data or the selection are invalid; or, to calibrate, another run uses the directory.
    """
    engine = engine or engine_of(grid, output)
    if calibrate:
        check_output(output)
        output.mkdir(parents=True, exist_ok=True)
    # in the directory of the grid, which other machines that run jobs have, too
    with tempfile.TemporaryDirectory(prefix=".plan-", dir=output if calibrate else None) as folder:
        scratch = Path(folder)
        corpus, cells = prepare(grid, root, scratch, progress)
        distinct = {repr([getattr(cell.config, slot) for slot in _TOKENIZING]): cell.config for cell in cells}
        warnings = list(dict.fromkeys(line for config in distinct.values() for line in plan_queries(config, corpus)))
        random = [cell.variant for cell in cells if has_random_frozen_text_encoder(cell.config)]
        warnings += [f"{variant}: {RANDOM_TEXT}" for variant in dict.fromkeys(random)]
        results = results_of(grid, corpus, cells, output, progress.note, repair=False, tells_others=True)
        chosen = (selection or Selection()).of(cells, results)
        every_start = _starts(cells, corpus)
        trained = {hash_ for hash_ in every_start if is_intact(output / "warm_start" / hash_)}
        starts = {hash_: own[0] for hash_, own in _starts(chosen, corpus).items() if hash_ not in trained}
        costs = known_costs(output)
        failed: list[str] = []
        if calibrate:
            unknown = estimate(chosen, corpus, costs, engine.workers).unknown
            new = {hash_: cell for hash_, cell in starts.items() if _start_key(hash_) not in costs}
            runner = Runner(grid, corpus, output, progress, engine, results)
            with locked(output):
                measured, failed = _measured(runner, unknown, new, scratch)
                write_calibration(output, measured)
            costs |= measured
    done = {
        key
        for cell in cells
        if results.get(cell.hash, {}).get("status") == "ok"
        and Path(cell.config.features.folder or output / "features").is_dir()  # merged results have no features here
        for key in _stored(cell)
    }
    known = {hash_: costs[key] for hash_ in starts if (key := _start_key(hash_)) in costs}
    steps = {
        hash_: start.training.num_steps(start.records or num_queries(cell.config, corpus))
        for hash_, cell in starts.items()
        if (start := cell.config.warm_start) is not None
    }
    found = estimate(
        chosen,
        corpus,
        costs,
        engine.workers,
        is_stored=lambda encoder: json_text(encoder) in done,
        extra_s=sum(cost.seconds(steps[hash_]) for hash_, cost in known.items()),
    )
    found = replace(found, kept_bytes=found.kept_bytes + sum(cost.kept_bytes for cost in known.values()))
    if warning := unnamed_places([cell.config for cell in cells], corpus.tasks):
        warnings.append(warning)
    return Plan(
        corpus,
        cells,
        results,
        chosen,
        _shared(cells, every_start, trained, done),
        found,
        engine.workers,
        len(starts) - len(known),
        warnings,
        failed,
    )


def _start_key(hash_: str) -> str:
    return f"warm start {hash_}"


def _starts(cells: Sequence[Cell], corpus: Corpus) -> dict[str, list[Cell]]:
    """Return the cells of each warm start, by its hash."""
    found: dict[str, list[Cell]] = {}
    for cell in cells:
        if cell.config.warm_start is not None:
            found.setdefault(warm_start_hash(cell.config, corpus.fingerprint), []).append(cell)
    return found


def _shared(
    cells: Sequence[Cell], starts: Mapping[str, Sequence[Cell]], trained: set[str], done: set[str]
) -> list[Shared]:
    """Return the warm starts, and the frozen encoders whose features or text states are stored."""
    found = []
    for hash_, own in starts.items():
        decoder = own[0].config.parts["decoder"]
        name = own[0].options.get("decoder", decoder.get("source", decoder["name"]))
        found.append(Shared(f"warm start of {name}", len(own), hash_ in trained))
    named: dict[str, str] = {}
    counts: Counter[str] = Counter()
    for cell in cells:
        for key, what in _stored(cell).items():
            counts[key] += 1
            named.setdefault(key, what)
    return found + [Shared(named[key], count, key in done) for key, count in counts.items()]


def _stored(cell: Cell) -> dict[str, str]:
    """Return what the frozen encoders of a cell store, features of media and states of texts, by a key."""
    found = {
        json_text(options): f"features of {cell.options.get(slot, options['name'])}"
        for slot, options in stored_encoders(cell.config).items()
    }
    if stores_texts(cell.config):
        name = cell.options.get("decoder", cell.config.parts["decoder"]["name"])
        found[_texts_key(cell.config)] = f"text states of {name}"
    return found


def _texts_key(config: RunConfig) -> str:
    """Return a key of the text states that a run needs: of its texts, and of the weights of their encoder."""
    from umie.composition import checkpoint_of

    weights = config.seed if checkpoint_of(config.parts["decoder"]) is None else None  # random ones have a seed
    return repr(([getattr(config, name) for name in _TOKENIZING], config.warm_start, weights))


def _measured(
    runner: Runner, cells: Sequence[Cell], starts: Mapping[str, Cell], scratch: Path
) -> tuple[dict[str, Cost], list[str]]:
    """Run a few steps of cells and warm starts; return the costs by key, and why others have none."""
    corpus = runner.data
    sample = sample_of(corpus, scratch / "sample")
    jobs = []
    for number, (key, cell, kind) in enumerate(
        [
            *((shape_of(cell.config, corpus.fingerprint), cell, "calibration") for cell in cells),
            *((_start_key(hash_), cell, "calibration of a warm start") for hash_, cell in starts.items()),
        ]
    ):
        folder = scratch / "measured" / str(number)
        title = f"a few steps of {'the warm start of ' if kind != 'calibration' else ''}{cell.variant}"
        values = {**calibration_job(cell.config, corpus, sample), "kind": kind, "identity": {"hash": key}}
        jobs.append(Job(title, folder, {**values, "folder": str(folder)}))
    titles = {job.values["identity"]["hash"]: job.name for job in jobs}
    costs: dict[str, Cost] = {}
    failed = []
    for line in runner.each(jobs):
        if line["status"] == "ok":
            line["cost"]["fixed_s"] += line["seconds"]["start"]
            costs[line["hash"]] = Cost(**line["cost"])
        else:
            failed.append(f"{titles[line['hash']]}: {line['error']}")
    return costs, failed
