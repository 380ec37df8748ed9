"""What `umie bench` shows: a progress bar, tables of ratios, the rows of a dry run, what moved."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import groupby

import typer
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table

from umie.bench.compare import Move
from umie.bench.lines import lines
from umie.bench.report import not_done
from umie.bench.results import DONE, MISSED, Results, Row
from umie.bench.run import Progress as RunProgress
from umie.bench.table import Block, Entry, blocks_of, figure, mebibytes, with_quartiles
from umie.cli.console import err, out
from umie.cli.options import show, tell


class BenchDisplay(RunProgress):
    """A bar for each shape on standard error, where it is a terminal; lines elsewhere.

    Args:
        save: keeps what was measured so far.
    """

    def __init__(self, save: Callable[[], None]) -> None:
        self.save = save  # type: ignore[method-assign] # it needs nothing of this object
        self._bar: TaskID | None = None
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=err,
            transient=True,
            disable=not err.is_terminal,
        )

    def __enter__(self) -> BenchDisplay:
        self._progress.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._progress.stop()

    def start(self, total: int, what: str) -> None:
        """Begin a shape."""
        if self._bar is not None:
            self._progress.remove_task(self._bar)
        self._bar = self._progress.add_task(what, total=total)
        if not err.is_terminal:
            tell(what)

    def step(self) -> None:
        """Move the bar."""
        if self._bar is not None:
            self._progress.advance(self._bar)

    def done(self, row: Row) -> None:
        """Print what became of a row that will not be timed."""
        tell(f"{row.block}: {row.name}, {row.direction}: {row.reason}", style="yellow")


def show_results(results: Results) -> None:
    """Print a table for each shape and direction, what is expected, and what was not measured."""
    for group, blocks in groupby(blocks_of(results), lambda block: (block.shape, block.dtype, block.direction)):
        listed = list(blocks)
        if any(entry.row.status == DONE for block in listed for entry in block.entries):
            out.print(f"\n[bold]{escape(', '.join(group))}[/bold]", highlight=False, soft_wrap=True)
            show(_table(listed))
    if found := lines(results):
        table = Table("", "ratio", "expected", "holds", box=None, header_style="bold")
        for line in found:
            holds = "[red]no[/red]" if line.holds is False else line.verdict
            table.add_row(escape(line.what), line.found, line.bound, holds)
        out.print("\n[bold]expected[/bold]")
        show(table)
    if missing := not_done(results):
        out.print("\n[bold]not measured[/bold]")
        for what, why in missing:
            out.print(f"{what}: {why}", highlight=False, markup=False, soft_wrap=True)


def _table(blocks: Sequence[Block]) -> Table:
    entries = [entry for block in blocks for entry in block.entries]
    with_floor = any(entry.of_floor is not None for entry in entries)
    header = ["", "ms (quartiles)", "of limit", "of peer", "MiB", *(["of floor"] if with_floor else [])]
    table = Table(*header, box=None, header_style="bold", pad_edge=False)
    for column in table.columns[1:]:
        column.justify, column.no_wrap = "right", True
    for block in blocks:
        timed = [entry for entry in block.entries if entry.row.status == DONE]
        if timed:
            table.add_row(f"[bold]{escape(block.name)}[/bold]")
        for entry in timed:
            table.add_row(*_cells(entry, block, with_floor))
    return table


def _cells(entry: Entry, block: Block, with_floor: bool) -> list[str]:
    row = entry.row
    cells = [
        f"  {escape(row.name)}" + (" *" if row is block.peer else ""),
        with_quartiles(row.time.times(1000) if row.time else None),
        "-" if entry.of_limit is None else f"{entry.of_limit.median:.2f}",
        "-" if entry.of_peer is None else f"{entry.of_peer.median:.2f}",
        mebibytes(row.peak_bytes),
    ]
    return [*cells, *(["-" if entry.of_floor is None else figure(entry.of_floor)] if with_floor else [])]


def show_plan(rows: Sequence[Row], rounds: int) -> None:
    """Print what would run, and what would not, with the reason."""
    for group, members in groupby(rows, lambda row: (row.shape, row.dtype)):
        typer.echo(" ".join(group))
        found: dict[tuple[str, str, str], list[str]] = {}
        for row in members:
            state = "would run" if row.status == MISSED else f"cannot run: {row.reason}"
            found.setdefault((row.block, row.name, state), []).append(row.direction)
        for (block, name, state), directions in found.items():
            typer.echo(f"  {block}: {name} ({', '.join(directions)}): {state}")
    running = sum(row.status == MISSED for row in rows)
    typer.echo(f"{running} of {len(rows)} rows would run, in {rounds} rounds")


def show_moves(moved: Sequence[Move], common: int, tolerance: float) -> None:
    """Print what moved, a line each."""
    for move in moved:
        row = move.row
        where = f"{row.shape} {row.dtype} {row.direction}"
        typer.echo(f"{move.verdict}: {row.block}: {row.name}, {where}: {move.detail}")
    verdicts = [move.verdict for move in moved]
    counts = ", ".join(f"{verdicts.count(verdict)} {verdict}" for verdict in dict.fromkeys(verdicts))
    noise = f"noise: quartile ranges apart and medians more than {100 * tolerance:g} % apart"
    typer.echo(f"{common} rows in common: {counts or 'nothing moved'} ({noise})")
