"""The figure of a result: time over that of the bare products, a bar for each operation, a panel for each shape."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

from umie.bench.ratios import Spread
from umie.bench.results import Results
from umie.bench.table import Block, blocks_of
from umie.files import atomic_write

COLORS = {"ours": "C0", "peer": "C1"}  # blue and orange, as the title says
ROW = 0.21  # inches of height that a bar takes
WIDTH = 6.4  # inches of a panel
LETTERS = 11  # of the title, an inch
CUT = 3.0  # times the middle of all bars: longer ones are cut, or nothing would be seen of the others


def write_figure(results: Results, path: Path) -> bool:
    """Draw the blocks that have a limit; return False, and draw nothing, where there is none."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    panels: dict[tuple[str, str], dict[str, list[tuple[str, list[tuple[str, str, Spread]]]]]] = {}
    directions: dict[str, None] = {}
    for block in blocks_of(results):
        if bars := _bars(block):
            directions[block.direction] = None
            panels.setdefault((block.shape, block.dtype), {}).setdefault(block.direction, []).append((block.name, bars))
    if not panels:
        return False
    heights = [max(_num_rows(blocks) for blocks in panel.values()) for panel in panels.values()]
    figure = Figure(
        figsize=(WIDTH * len(directions), ROW * sum(heights) + 1.0 * len(panels) + 0.4), layout="constrained"
    )
    FigureCanvasAgg(figure)
    grid = figure.subplots(len(panels), len(directions), squeeze=False, height_ratios=heights)
    for axes_row, ((shape, dtype), panel) in zip(grid, panels.items(), strict=True):
        for axes, direction in zip(axes_row, directions, strict=True):
            if direction not in panel:
                axes.set_visible(False)
                continue
            _draw(axes, panel[direction])
            axes.set_title(f"{direction}, {shape}, {dtype}", fontsize=9)
    environment = results.environment
    title = (
        "Time over that of the bare matrix products (line at 1), medians and quartiles; "
        "blue: umie, orange: others; >: cut",
        f"{environment['device_name']}, {environment['threads']} threads, torch {environment['versions']['torch']}",
    )
    letters = int(LETTERS * WIDTH * len(directions))
    figure.suptitle("\n".join(textwrap.fill(line, letters) for line in title), fontsize=10)
    with atomic_write(path, "wb") as file:
        figure.savefig(file, format="png", dpi=130)
    return True


def _bars(block: Block) -> list[tuple[str, str, Spread]]:
    """Return name, kind and ratio of each operation that stands over a limit."""
    return [(entry.row.name, entry.row.kind, entry.of_limit) for entry in block.entries if entry.of_limit is not None]


def _num_rows(blocks: Sequence[tuple[str, list[Any]]]) -> int:
    return sum(len(bars) + 1 for _, bars in blocks)


def _draw(axes: Any, blocks: Sequence[tuple[str, list[tuple[str, str, Spread]]]]) -> None:
    place = 0
    labels: dict[int, str] = {}
    middle = median(found.median for _, bars in blocks for _, _, found in bars)
    most = max(1.0, min(CUT * middle, max(found.high for _, bars in blocks for _, _, found in bars)))
    for name, bars in blocks:
        labels[place] = name
        place += 1
        for label, kind, found in bars:
            axes.barh(place, min(found.median, most), 0.8, color=COLORS[kind], alpha=0.8)
            axes.plot([min(found.low, most), min(found.high, most)], [place, place], color="black", linewidth=1.2)
            end, cut = max(found.median, found.high), " >" if found.median > most else ""
            axes.text(min(end, most), place, f" {found.median:.2f}{cut}", va="center", fontsize=7)
            labels[place] = label
            place += 1
    axes.axvline(1, color="black", linewidth=0.8, linestyle="--")
    axes.set_xlim(0, most * 1.12)
    axes.set_ylim(place - 0.4, -0.6)
    axes.set_yticks(list(labels), list(labels.values()), fontsize=8)
    heads = {name for name, _ in blocks}
    for tick, label in zip(axes.get_yticklabels(), labels.values(), strict=True):
        if label in heads:
            tick.set_fontweight("bold")
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x", alpha=0.3)
    axes.set_axisbelow(True)
