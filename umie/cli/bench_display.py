"""The terminal output of `umie bench`: progress, tables of ratios, the list of a dry run, and changes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import groupby

import typer
from rich.markup import escape
from rich.table import Table

from umie.bench.compare import Change
from umie.bench.ratios import mebibytes, shown
from umie.bench.results import MISSED, Results, Row
from umie.bench.run import Progress as RunProgress
from umie.bench.table import Block, Entry, blocks_of, not_timed
from umie.cli.console import out
from umie.cli.options import show, tell
from umie.cli.progress import Display


class BenchDisplay(RunProgress):
    """A progress bar for each shape.

    Args:
        save: saves the results so far.
    """

    def __init__(self, save: Callable[[], None]) -> None:
        self.save = save  # type: ignore[method-assign] # it does not use this object
        self._display = Display()
        self._num_steps = 0

    def __enter__(self) -> BenchDisplay:
        self._display.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self._display.__exit__(*error)

    def start(self, total: int, what: str) -> None:
        """Start a shape."""
        self._num_steps = 0
        self._display.phase(what, total)

    def step(self) -> None:
        """Advance the bar."""
        self._num_steps += 1
        self._display.advance(self._num_steps)

    def done(self, row: Row) -> None:
        """Print the reason of a row that will not be timed."""
        tell(f"{row.block}: {row.name}, {row.direction}: {row.reason}", style="yellow")


def show_results(results: Results) -> None:
    """Print a table for each shape and direction, and the operations that were not measured."""
    for group, found in groupby(blocks_of(results), lambda block: (block.shape, block.dtype, block.direction)):
        blocks = [block for block in found if block.timed]
        if blocks:
            out.print(f"\n[bold]{escape(', '.join(group))}[/bold]", highlight=False, soft_wrap=True)
            show(_table(blocks))
    if missing := not_timed(results):
        out.print("\n[bold]not measured[/bold]")
        for what, why in missing:
            out.print(f"{what}: {why}", highlight=False, markup=False, soft_wrap=True)


def _table(blocks: Sequence[Block]) -> Table:
    header = ("", "ms (quartiles)", "of limit", "of peer", "MiB")
    table = Table(*header, box=None, header_style="bold", pad_edge=False)
    for column in table.columns[1:]:
        column.justify, column.no_wrap = "right", True
    for block in blocks:
        table.add_row(f"[bold]{escape(block.name)}[/bold]")
        for entry in block.timed:
            table.add_row(*_cells(entry, block))
    return table


def _cells(entry: Entry, block: Block) -> list[str]:
    row = entry.row
    return [
        f"  {escape(row.name)}" + (" (fastest peer)" if row is block.peer else ""),
        shown(row.time.times(1000) if row.time else None),
        "-" if entry.of_limit is None else f"{entry.of_limit.median:.2f}",
        "-" if entry.of_peer is None else f"{entry.of_peer.median:.2f}",
        mebibytes(row.peak_bytes),
    ]


def show_plan(rows: Sequence[Row], rounds: int) -> None:
    """Print the operations that would run, and those that cannot, with the reason."""
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


def show_changes(changed: Sequence[Change], common: int, tolerance: float) -> None:
    """Print one line for each change, then a summary."""
    for change in changed:
        row = change.row
        where = f"{row.shape} {row.dtype} {row.direction}"
        typer.echo(f"{change.verdict}: {row.block}: {row.name}, {where}: {change.detail}")
    verdicts = [change.verdict for change in changed]
    counts = ", ".join(f"{verdicts.count(verdict)} {verdict}" for verdict in dict.fromkeys(verdicts))
    rule = f"quartile ranges apart and medians more than {100 * tolerance:g} % apart"
    typer.echo(f"{common} rows in common: {counts or 'no change'} ({rule})")
