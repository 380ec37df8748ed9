"""A result as Markdown: where it ran, the table of every shape, what is expected, what did not run."""

from __future__ import annotations

from itertools import groupby

from umie.bench.check import GRADIENTS, PEER_GRADIENTS, VALUES
from umie.bench.lines import lines
from umie.bench.measure import LEAST_S
from umie.bench.ratios import ROUNDS
from umie.bench.results import DONE, Results, Row
from umie.bench.table import Block, Entry, blocks_of, figure, mebibytes, with_quartiles

HEADER = ["", "ms (quartiles)", "of bare products", "of nearest peer", "peak MiB", "of plain block's"]


def markdown(results: Results, command: str) -> str:
    """Return the whole report.

    Args:
        results: what was measured.
        command: what made it.
    """
    found = lines(results)
    parts = ["# Fusion microbenchmarks", _intro(results, command)]
    if not results.complete:
        parts.append("**Interrupted**: rows that were not reached are missing.")
    for group, blocks in groupby(blocks_of(results), lambda block: (block.shape, block.dtype, block.direction)):
        listed = list(blocks)
        parts += [f"## {', '.join(group)}", table(*_cells(listed))]
    if found:
        rows = [
            [line.what, line.found, line.bound, line.verdict if line.holds is not False else "**no**"] for line in found
        ]
        parts += ["## What is expected", table(["", "ratio (quartiles)", "expected", "holds"], rows)]
    if missing := not_done(results):
        parts += ["## Not measured", table(["", "why"], [[what, why] for what, why in missing])]
    if notes := _notes(results):
        parts += ["## Notes", table(["", "what it computes otherwise"], notes)]
    return "\n\n".join(parts) + "\n"


def not_done(results: Results) -> list[tuple[str, str]]:
    """Return what was not timed, and why; directions and shapes with one reason are one line."""
    found: dict[tuple[str, str, str], list[Row]] = {}
    for row in results.rows:
        if row.status != DONE or row.reason:  # what was not weighed is done, and has its reason
            found.setdefault((row.block, row.name, row.reason or row.status), []).append(row)
    lines = []
    for (block, name, reason), rows in found.items():
        # where it did run elsewhere, say where it did not
        some = any(row.status == DONE and (row.block, row.name) == (block, name) for row in results.rows)
        where = "; ".join(dict.fromkeys(f"{row.shape} {row.dtype} {row.direction}" for row in rows))
        lines.append((f"{block}: {name}" + (f" ({where})" if some else ""), reason))
    return lines


def _notes(results: Results) -> list[list[str]]:
    found = {(row.block, row.name): row.note for row in results.rows if row.note}
    return [[f"{block}: {name}", note] for (block, name), note in found.items()]


def _intro(results: Results, command: str) -> str:
    environment = results.environment
    versions = ", ".join(f"{name} {version}" for name, version in environment["versions"].items() if version)
    bounds = "; ".join(
        f"{str(dtype).removeprefix('torch.')} {VALUES[dtype]:.0e} (gradients {GRADIENTS[dtype]:.0e}, of others' blocks "
        f"{PEER_GRADIENTS[dtype]:.0e})"
        for dtype in VALUES
    )
    return (
        f"`{command}`, {environment['date'][:10]}, on {environment['device_name']} ({environment['device']}), "
        f"{environment['threads']} threads of {environment['processor']}; umie {environment['umie']}, {versions}; load "
        f"of the machine before: {environment['load']}. Every operation was first held against a plain twin in "
        f"float64, values and gradients; relative error at most {bounds}. Operations of a shape run in turn, in "
        f"{results.options.get('rounds', '?')} rounds of at least {1000 * LEAST_S:.0f} ms each; times are medians, and "
        "ratios medians of the ratios within each round, with quartiles; before each measurement the operation runs "
        "once untimed, in its place, so that a ratio is one of steady states. A verdict on times needs at least "
        f"{ROUNDS} rounds. Peak memory is what an operation allocates through torch, above what was there before. "
        "`auto` is what a user gets without asking."
    )


def _cells(blocks: list[Block]) -> tuple[list[str], list[list[str]]]:
    with_floor = any(entry.of_floor is not None for block in blocks for entry in block.entries)
    header = [*HEADER, *(["of the device's floor"] if with_floor else [])]
    rows = []
    for block in blocks:
        rows.append([f"**{block.name}**", *[""] * (len(header) - 1)])
        rows += [_line(entry, with_floor) for entry in block.entries if entry.row.status == DONE]
    return header, rows


def _line(entry: Entry, with_floor: bool) -> list[str]:
    row = entry.row
    cells = [
        row.name,
        with_quartiles(row.time.times(1000) if row.time else None),
        with_quartiles(entry.of_limit),
        with_quartiles(entry.of_peer),
        mebibytes(row.peak_bytes),
        "-" if entry.of_plain_memory is None else f"{entry.of_plain_memory:.2f}",
    ]
    return [*cells, *(["-" if entry.of_floor is None else figure(entry.of_floor)] if with_floor else [])]


def table(header: list[str], rows: list[list[str]]) -> str:
    """Return a Markdown table; columns after the first are right-aligned where there are more than two."""
    rule = ["---", *["---:" if len(header) > 2 else "---"] * (len(header) - 1)]
    lines = [[cell.replace("|", "\\|") for cell in cells] for cells in [header, *rows]]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in [lines[0], rule, *lines[1:]])
