"""The plan of a grid on the terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.markup import escape
from rich.table import Table

from umie.cli.console import out, print_line, print_note
from umie.cli.progress import clock

if TYPE_CHECKING:
    from umie.experiments.expand import Cell
    from umie.experiments.planning import Plan


def print_plan(plan: Plan, output: Path) -> None:
    """Print the cells of a grid, the work that they share, and what they will cost."""
    from umie.experiments.results import state_of

    chosen = {cell.hash for cell in plan.chosen}

    def state(cell: Cell) -> str:
        known = plan.results.get(cell.hash)
        return state_of(known) if known is not None else "to run" if cell.hash in chosen else "not chosen"

    print_cells([(cell, state(cell)) for cell in plan.cells])
    sizes = ""
    for name, one in plan.corpus.sets.items():
        sizes = ", ".join(f"{split} {count}" for split, count in one.num_records.items())
        if not plan.corpus.is_single:
            print_line(f"{name}: {sizes}")
        for line in one.overlap():
            print_note(f"umie: warning: {name}: {line}")
    what = f"records: {sizes}" if plan.corpus.is_single else f"{len(plan.corpus.sets)} data sets"
    print_line(f"{len(plan.cells)} cells; {what}; output: {output}")
    for line in (*_shared(plan), *_costs(plan)):
        print_line(line)
    for line in plan.failed:
        print_note(f"umie: warning: could not be measured: {line}")
    for line in plan.warnings:
        print_note(f"umie: warning: {line}")


def print_cells(states: Sequence[tuple[Cell, str]]) -> None:
    """Print a table of cells and their states."""
    table = Table("cell", "variant", "seed", "state")
    for cell, state in states:
        table.add_row(cell.hash or "-", escape(cell.variant), str(cell.seed), state)
    out.print(table)


def _shared(plan: Plan) -> Iterator[str]:
    for one in plan.shared:
        state = "done" if one.is_done else "to do"
        yield f"shared by {counted(one.num_cells, 'cell')}: {one.what} ({state})"


def _costs(plan: Plan) -> Iterator[str]:
    """Yield the cost of the cells to run, and what is not known about it."""
    found = plan.estimate
    if not plan.chosen:
        yield "nothing to run"
        return
    known = found.num_cells - found.num_unknown
    yield f"to run: {found.num_cells} of {len(plan.cells)} cells, {min(plan.workers, found.num_cells)} at a time"
    if known:
        sources = [
            counted(found.num_finished, "finished cell") if found.num_finished else "",
            f"a few steps of {counted(found.num_calibrated, 'cell')}" if found.num_calibrated else "",
        ]
        of = "" if not found.num_unknown else f" of {known} of them"
        yield (
            f"time{of}: about {clock(found.wall_s)} ({clock(found.work_s)} of work), measured on "
            f"{' and '.join(source for source in sources if source)}"
        )
        gpu = f", GPU {size(found.device_bytes)}" if found.device_bytes else ""
        host = f"memory: {size(found.memory_bytes)} at the same time{gpu}; " if found.memory_bytes else ""
        scratch = f", and {size(found.scratch_bytes)} for checkpoints meanwhile" if found.scratch_bytes else ""
        yield f"{host}disk: {size(found.kept_bytes)}{scratch}"
    if found.num_unknown or plan.unknown_starts:
        parts = [counted(found.num_unknown, "cell") if found.num_unknown else ""]
        parts += [counted(plan.unknown_starts, "warm start") if plan.unknown_starts else ""]
        how = "" if plan.failed else "; --plan --calibrate measures a few steps of each kind"
        yield f"time, memory and disk of {' and '.join(part for part in parts if part)} are not known yet{how}"


def counted(number: int, noun: str) -> str:
    """Return a number and its noun."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def size(num_bytes: float) -> str:
    """Return a size with a unit, e.g. ``1.2 GB``."""
    value, units = num_bytes, ["B", "kB", "MB", "GB", "TB"]
    while value >= 999.5 and len(units) > 1:
        value /= 1000
        units.pop(0)
    return f"{value:.0f} {units[0]}" if value >= 10 or units[0] == "B" else f"{value:.1f} {units[0]}"
