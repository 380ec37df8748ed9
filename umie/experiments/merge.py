"""Join results of one grid: from directories of several machines or sessions, and from archives."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from umie.errors import UmieError
from umie.experiments.grid_file import GRID_FILE, GridCell, GridFile
from umie.experiments.grid_results import GridResults, load
from umie.experiments.identity import locked
from umie.experiments.results import COUNTS, CURVES, GATES, RESULT, RESULTS, append_result, cell_folder, write_sealed
from umie.files import atomic_write, json_text
from umie.versions import file_digest


@dataclass
class Merged:
    """What was joined."""

    num_cells: int = 0  # of the grid
    num_finished: int = 0
    num_added: int = 0  # of these, to the directory
    conflicts: list[str] = field(default_factory=list)  # cells with several results; the first is kept
    damage: list[str] = field(default_factory=list)


def merge(paths: Sequence[str | Path], output: str | Path) -> Merged:
    """Join results of one grid in a directory, in which ``umie ablate`` then runs only the cells that are missing.

    Cells are recognized by their ids. Results that the directory already has are kept; of several results of a cell the
    first one counts, and those that differ are reported. Crashed cells are left out, because they run again.

    Args:
        paths: directories of grids, or archives.
        output: the directory, which is created if it does not exist.

    Raises:
        UmieError: they are not results of one grid: other tasks, another split or records, or a variant has the same
            name and seed, but other options; or the directory is in use, or holds something else.
    """
    output = Path(output)
    if not paths:
        raise UmieError("there is nothing to merge: pass directories of grids, or archives")
    sources = [load(path) for path in paths]
    if (output / GRID_FILE).exists():
        sources = [one for one in sources if one.path.resolve() != output.resolve()]
        sources.insert(0, load(output))
    elif output.is_dir() and any(path.name != ".lock" for path in output.iterdir()):
        raise UmieError(f"{output}: is a directory without {GRID_FILE}: use a new one, or that of a grid")
    grid = _joined(sources)
    merged = Merged(len(grid.cells), damage=[line for one in sources for line in one.damage])
    with locked(output):
        write_sealed(output / GRID_FILE, grid.model_dump(mode="json"))
        for cell in grid.cells:
            found = [one for one in sources if one.results.get(cell.hash, {}).get("status") == "ok"]
            if not found:
                continue
            merged.num_finished += 1
            merged.conflicts += _conflicts(cell, found)
            if found[0].path != output:
                _restore(found[0], cell, output)
                merged.num_added += 1
    return merged


def _joined(sources: Sequence[GridResults]) -> GridFile:
    """Return the description of all sources together; raise UmieError if they are not of one grid."""
    first = sources[0]
    cells: dict[str, GridCell] = {}
    named: dict[tuple[str, int], tuple[GridCell, GridResults]] = {}
    for one in sources:
        for what in ("split", "scored", "records", "f1_name"):
            if getattr(one.grid, what) != getattr(first.grid, what):
                raise UmieError(f"{one.path}: is not the grid of {first.path}: they differ in {what}")
        for cell in one.cells:
            other, place = named.setdefault((cell.variant, cell.seed), (cell, one))
            if other.hash != cell.hash:
                differs = ", ".join(_differences(other.setup, cell.setup)) or "its data, weights, plugins or version"
                raise UmieError(
                    f"{one.path}: {cell.variant}, seed {cell.seed} is another cell than in {place.path} ({cell.hash} "
                    f"and {other.hash}): they differ in {differs}; give one a label, or run it again"
                )
            cells.setdefault(cell.hash, cell)
    full = next((one.grid for one in sources if one.grid.baselines), first.grid)
    return full.model_copy(update={"name": first.name, "cells": list(cells.values())})


def _differences(one: Any, other: Any, place: str = "") -> Iterator[str]:
    """Yield the dotted keys whose values differ."""
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        for key in dict.fromkeys([*one, *other]):
            yield from _differences(one.get(key), other.get(key), f"{place}.{key}" if place else key)
    elif one != other:
        yield place


def _conflicts(cell: GridCell, found: Sequence[GridResults]) -> Iterator[str]:
    """Yield a sentence for each result of a cell whose scores differ from those of the first one."""
    kept, *others = found
    scores = {key: values["f1"] for key, values in kept.results[cell.hash]["metrics"].items()}
    for one in others:
        own = {key: values["f1"] for key, values in one.results[cell.hash]["metrics"].items()}
        if one.results[cell.hash]["metrics"] != kept.results[cell.hash]["metrics"]:
            key = next((key for key in scores if scores[key] != own.get(key)), None)
            what = "its metrics differ" if key is None else f"F1 of {key} is {own.get(key):.6f}, not {scores[key]:.6f}"
            yield f"{cell.variant}, seed {cell.seed}: {what} in {one.path}; the result of {kept.path} is kept"


def _restore(source: GridResults, cell: GridCell, output: Path) -> None:
    """Write a finished cell of a source into a directory; its result comes last, so that a cell is whole or missing."""
    line = source.results[cell.hash]
    folder = cell_folder(output, cell.hash)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / RESULT).unlink(missing_ok=True)
    if source.archived is not None:
        counts = source.archived.get(cell.hash)
        if counts:
            with atomic_write(folder / COUNTS) as file:
                file.write(json_text(counts))
            expected = line.get("files", {}).get(COUNTS)
            if expected is not None and file_digest(folder / COUNTS) != expected:
                raise UmieError(f"{source.path}: the counts of {cell.hash} do not fit its result: copy it again")
    else:
        own = cell_folder(source.path, cell.hash)
        for name in (COUNTS, CURVES, GATES, "log.txt", *(f"{one.file_name}.jsonl" for one in source.scored)):
            path = own / name
            if path.is_file() and not path.is_symlink():
                with path.open("rb") as copied, atomic_write(folder / name, "wb") as file:
                    shutil.copyfileobj(copied, file)
    write_sealed(folder / RESULT, line)
    append_result(output / RESULTS, line)
