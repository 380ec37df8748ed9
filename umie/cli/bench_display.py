"""The terminal output of `umie bench`: progress, tables of ratios, the list of a dry run, and changes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import groupby

from rich.markup import escape

from umie.bench.compare import Change
from umie.bench.environment import device_error
from umie.bench.ratios import mebibytes, shown
from umie.bench.results import MISSED, Results, Row
from umie.bench.run import Plan
from umie.bench.run import Progress as RunProgress
from umie.bench.table import blocks_of, not_timed
from umie.cli.console import number_table, out, print_line, print_note, show
from umie.cli.progress import Display


class BenchDisplay(Display, RunProgress):
    """A progress bar for each shape; ``save`` saves the results so far."""

    def __init__(self, save: Callable[[], None]) -> None:
        super().__init__()
        self.save = save  # type: ignore[method-assign] # it does not use this object
        self._num_steps = 0

    def start(self, total: int, what: str) -> None:
        """Start a shape."""
        self._num_steps = 0
        self.phase(what, total)

    def step(self) -> None:
        """Advance the bar."""
        self._num_steps += 1
        self.advance(self._num_steps)

    def done(self, row: Row) -> None:
        """Print the reason of a row that will not be timed."""
        print_note(f"{row.block}: {row.name}, {row.direction}: {row.reason}", "yellow")


def show_results(results: Results) -> None:
    """Print a table for each shape and direction, and the operations that were not measured."""
    for group, found in groupby(blocks_of(results), lambda block: (block.shape, block.dtype, block.direction)):
        blocks = [block for block in found if block.timed]
        if not blocks:
            continue
        header = ("", "ms (quartiles)", "of limit", "of peer", "MiB")
        table = number_table(*header, no_wrap=True, box=None, header_style="bold", pad_edge=False)
        for block in blocks:
            table.add_row(f"[bold]{escape(block.name)}[/bold]")
            for entry in block.timed:
                row = entry.row
                table.add_row(
                    f"  {escape(row.name)}" + (" (fastest peer)" if row is block.peer else ""),
                    shown(row.time.times(1000) if row.time else None),
                    "-" if entry.of_limit is None else f"{entry.of_limit.median:.2f}",
                    "-" if entry.of_peer is None else f"{entry.of_peer.median:.2f}",
                    mebibytes(row.peak_bytes),
                )
        print_line(f"\n{', '.join(group)}", "bold")
        show(table)
    if missing := not_timed(results):
        out.print("\n[bold]not measured[/bold]")
        for what, why in missing:
            print_line(f"{what}: {why}")


def show_plan(plan: Plan) -> None:
    """Print the operations that would run, and those that cannot, with the reason."""
    if (reason := device_error(plan.device)) is not None:
        print_note(f"umie: {plan.device} is not available: {reason}", "yellow")
    rows = plan.rows()
    for group, members in groupby(rows, lambda row: (row.shape, row.dtype)):
        print_line(" ".join(group))
        found: dict[tuple[str, str, str], list[str]] = {}
        for row in members:
            state = "would run" if row.status == MISSED else f"cannot run: {row.reason}"
            found.setdefault((row.block, row.name, state), []).append(row.direction)
        for (block, name, state), directions in found.items():
            print_line(f"  {block}: {name} ({', '.join(directions)}): {state}")
    running = sum(row.status == MISSED for row in rows)
    print_line(f"{running} of {len(rows)} rows would run, in {plan.rounds} rounds")


def show_changes(changed: Sequence[Change], common: int, tolerance: float) -> None:
    """Print one line for each change, then a summary."""
    for change in changed:
        row = change.row
        where = f"{row.shape} {row.dtype} {row.direction}"
        print_line(f"{change.verdict}: {row.block}: {row.name}, {where}: {change.detail}")
    verdicts = [change.verdict for change in changed]
    counts = ", ".join(f"{verdicts.count(verdict)} {verdict}" for verdict in dict.fromkeys(verdicts))
    rule = f"quartile ranges apart and medians more than {100 * tolerance:g}% apart"
    print_line(f"{common} rows in common: {counts or 'no change'} ({rule})")
