"""The report of `umie bench` as Markdown: environment, a table per shape, and operations that were not timed."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

from umie.bench.check import GRADIENTS, PEER_GRADIENTS, VALUES
from umie.bench.environment import described
from umie.bench.measure import MIN_S
from umie.bench.ratios import ROUNDS, mebibytes, shown
from umie.bench.results import Results
from umie.bench.table import Block, Entry, blocks_of, not_timed
from umie.reports.tables import markdown_table

HEADER = ["", "ms (quartiles)", "of bare products", "of fastest peer", "peak MiB", "of plain block's"]


def bench_page(results: Results, command: str) -> str:
    """Return the report.

    Args:
        results: the results of a run.
        command: the command that produced them.
    """
    parts = ["# Fusion microbenchmarks", _introduction(results, command)]
    if not results.complete:
        parts.append("**Interrupted**: rows that were not reached are missing.")
    for group, blocks in groupby(blocks_of(results), lambda block: (block.shape, block.dtype, block.direction)):
        rows = [row for block in blocks for row in _rows(block)]
        parts += [f"## {', '.join(group)}", markdown_table(HEADER, rows)]
    if missing := not_timed(results):
        parts += ["## Not measured", markdown_table(["", "reason"], missing)]
    if notes := {f"{row.block}: {row.name}": row.note for row in results.rows if row.note}:
        parts += ["## Notes", markdown_table(["", "difference"], list(notes.items()))]
    return "\n\n".join(parts) + "\n"


def _introduction(results: Results, command: str) -> str:
    bounds = "; ".join(
        f"{str(dtype).removeprefix('torch.')} {VALUES[dtype]:.0e} (gradients {GRADIENTS[dtype]:.0e}, those of peers "
        f"{PEER_GRADIENTS[dtype]:.0e})"
        for dtype in VALUES
    )
    return (
        f"`{command}`: {described(results.environment)}.\n\n"
        "Each operation was first checked against a plain reference in float64, values and gradients; the largest "
        f"relative error allowed is {bounds}. The operations of a shape run in alternation, in "
        f"{results.options.get('rounds', '?')} rounds of at least {1000 * MIN_S:.0f} ms each, and each runs once "
        "untimed directly before it is timed. Times are medians over the rounds, and ratios are medians of the ratios "
        f"within each round, with quartiles. A verdict on times needs at least {ROUNDS} rounds. Peak memory is the "
        "memory that an operation allocates through torch. `auto` is the default backend."
    )


def _rows(block: Block) -> Sequence[Sequence[str]]:
    return [[f"**{block.name}**", *[""] * (len(HEADER) - 1)], *map(_row, block.timed)]


def _row(entry: Entry) -> list[str]:
    time, memory = entry.row.time, entry.of_plain_memory
    return [
        entry.row.name,
        shown(time.times(1000) if time else None),
        shown(entry.of_limit),
        shown(entry.of_peer),
        mebibytes(entry.row.peak_bytes),
        "-" if memory is None else f"{memory:.2f}",
    ]
