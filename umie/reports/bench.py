"""The report of `umie bench`: a Markdown page, and a figure of times relative to the bare matrix products."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from statistics import median
from typing import Any

from umie.bench.check import GRADIENTS, PEER_GRADIENTS, VALUES
from umie.bench.environment import described
from umie.bench.measure import MIN_S
from umie.bench.ratios import ROUNDS, Spread, mebibytes, shown
from umie.bench.results import Results
from umie.bench.table import Block, blocks_of, not_timed
from umie.reports.style import (
    BLUE,
    DASHED,
    ORANGE,
    add_legend,
    clean_axes,
    color_key,
    line_key,
    new_figure,
    save_figure,
)
from umie.reports.tables import markdown_table

HEADER = ["", "ms (quartiles)", "of bare products", "of fastest peer", "peak MiB", "of plain block's"]
COLORS = {"ours": BLUE, "peer": ORANGE}
LABELS = {"ours": "umie", "peer": "other implementations"}
BAR_HEIGHT, PANEL_WIDTH, MARGIN = 0.21, 6.8, 0.9  # inches
CUT = 3.0  # bars longer than this multiple of the median bar are cut; the others would be too short to compare


def bench_page(results: Results, command: str) -> str:
    """Return the page for results and the command that produced them."""
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


def _rows(block: Block) -> list[list[str]]:
    rows = [[f"**{block.name}**", *[""] * (len(HEADER) - 1)]]
    for entry in block.timed:
        time, memory = entry.row.time, entry.of_plain_memory
        rows.append(
            [
                entry.row.name,
                shown(time.times(1000) if time else None),
                shown(entry.of_limit),
                shown(entry.of_peer),
                mebibytes(entry.row.peak_bytes),
                "-" if memory is None else f"{memory:.2f}",
            ]
        )
    return rows


def draw_bench(results: Results, path: Path) -> bool:
    """Draw the blocks that have a limit, one panel per shape and direction; return False if there are none."""
    panels: dict[tuple[str, str], dict[str, list[Block]]] = {}
    directions: dict[str, None] = {}
    without: dict[str, None] = {}
    for block in blocks_of(results):
        if _bars(block):
            directions[block.direction] = None
            panels.setdefault((block.shape, block.dtype), {}).setdefault(block.direction, []).append(block)
        elif block.timed:
            without[block.name] = None
    if not panels:
        return False
    heights = [
        max(sum(len(_bars(block)) + 1 for block in blocks) for blocks in panel.values()) for panel in panels.values()
    ]
    figure = new_figure(PANEL_WIDTH * len(directions), BAR_HEIGHT * sum(heights) + MARGIN * len(panels) + 0.8)
    layout: Any = figure.get_layout_engine()
    layout.set(w_pad=0.15, h_pad=0.08)
    grid = figure.subplots(len(panels), len(directions), squeeze=False, height_ratios=heights)
    for axes_row, ((shape, dtype), panel) in zip(grid, panels.items(), strict=True):
        for axes, direction in zip(axes_row, directions, strict=True):
            if direction not in panel:
                axes.set_visible(False)
                continue
            _draw(axes, panel[direction], f"{direction}, {shape}, {dtype}")
    environment = results.environment
    figure.suptitle(
        f"{environment['device_name']}, {environment['threads']} threads, torch {environment['versions']['torch']}",
        fontsize=10,
    )
    entries = [
        *(color_key(color, LABELS[kind]) for kind, color in COLORS.items()),
        line_key("bare matrix products", DASHED),
    ]
    title = f"not drawn, no matrix products to compare with: {', '.join(without)}" if without else None
    add_legend(figure, entries, title=title)
    save_figure(figure, path)
    return True


def _bars(block: Block) -> list[tuple[str, str, Spread]]:
    """Return the name, kind and ratio of each operation that has a limit."""
    return [(entry.row.name, entry.row.kind, entry.of_limit) for entry in block.entries if entry.of_limit is not None]


def _draw(axes: Any, blocks: Sequence[Block], title: str) -> None:
    ratios = [found for block in blocks for _, _, found in _bars(block)]
    limit = max(1.0, min(CUT * median(found.median for found in ratios), max(found.high for found in ratios)))
    labels: list[str] = []
    for block in blocks:
        labels.append(block.name)
        for name, kind, found in _bars(block):
            place = len(labels)
            axes.barh(place, min(found.median, limit), 0.8, color=COLORS[kind])
            axes.plot([min(found.low, limit), min(found.high, limit)], [place, place], color="black", linewidth=1.2)
            cut = " (bar is cut)" if found.median > limit else ""
            end = min(max(found.median, found.high), limit)
            axes.text(end, place, f" {found.median:.2f}{cut}", va="center", fontsize=7)
            labels.append(name)
    axes.axvline(1, **DASHED)
    axes.set_xlim(0, limit * (1.2 if any(found.median > limit for found in ratios) else 1.1))
    axes.set_ylim(len(labels) - 0.4, -0.6)
    clean_axes(axes, grid="x", title=title, x="time relative to bare matrix products")
    axes.set_yticks(range(len(labels)), labels, fontsize=8)
    heads = {block.name for block in blocks}
    for tick, label in zip(axes.get_yticklabels(), labels, strict=True):
        if label in heads:
            tick.set_fontweight("bold")
    axes.tick_params(axis="y", length=0)
