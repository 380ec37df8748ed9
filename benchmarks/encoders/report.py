"""Times of the visual encoders as a Markdown page, with the ratios that this repository expects.

Rows are timed in alternation, round after round, and a ratio is the median of the ratios within each round, so that
other load on the machine affects all rows alike. On an idle machine use ``python benchmarks/encoders/report.py``; on a
busy one, ``--threads 1 --processor-time`` gives the most stable ratios.
"""

from __future__ import annotations

import argparse
import math
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from rows import HEIGHT, NUM_REGIONS, WIDTH, Row, rows

from umie.bench.environment import processor
from umie.bench.ratios import ROUNDS, digits, ratio, spread
from umie.files import atomic_write
from umie.reports.tables import markdown_table
from umie.versions import versions

RESULTS = Path(__file__).resolve().parents[1] / "results"
LIBRARIES = ("torch", "torchvision", "open_clip_torch", "pillow")
MIN_S = 0.05  # a short operation is repeated for at least this long in each round


@dataclass(frozen=True)
class Line:
    """The expected ratio of the times of two rows."""

    slow: str
    fast: str
    least: float = 0.0
    most: float = math.inf

    def verdict(self, found: float) -> str:
        """Return whether a ratio is within its bounds, as a table cell."""
        return "yes" if self.least <= found <= self.most else "**no**"

    def __str__(self) -> str:
        bounds = [f"at least {self.least:g}"] * (self.least > 0) + [f"at most {self.most:g}"] * (self.most < math.inf)
        return ", ".join(bounds)


def expected_lines() -> list[Line]:
    """Return the expected ratios: of crops in a plain loop, of the encoder's crops, and of the bare backbone."""
    found = []
    for crop in ("crop, all at once", "crop"):
        for dtype in ("float32", "bfloat16"):
            found.append(Line(f"{crop}, {dtype}", f"align 320, {dtype}", least=15))
            found.append(Line(f"{crop}, {dtype}", f"align 480, {dtype}", least=8))
        found.append(Line(f"{crop}, float32", "align 320, bfloat16", least=25))
        found.append(Line(f"{crop}, float32", "cached", least=500))
    for dtype in ("float32", "bfloat16"):
        for side in (320, 480):
            found.append(Line(f"align {side}, {dtype}", f"bare pass {side}, {dtype}", most=1.25))
    return [*found, Line("pooling by torchvision's RoIAlign", "pooling", least=1)]


def measure(chosen: dict[str, Row], rounds: int, clock: Callable[[], float]) -> dict[str, list[float]]:
    """Check every row, run it once, and return its seconds for each round."""
    repeats = {}
    for name, row in chosen.items():
        row.check()
        row.run()
        repeats[name] = max(1, round(MIN_S / max(seconds(row, 1, clock), 1e-6)))
        print(f"checked: {name}", file=sys.stderr, flush=True)  # noqa: T201 # progress
    times: dict[str, list[float]] = {name: [] for name in chosen}
    for _ in range(rounds):
        for name, row in chosen.items():
            times[name].append(seconds(row, repeats[name], clock))
    return times


def seconds(row: Row, repeats: int, clock: Callable[[], float]) -> float:
    """Return the time of one operation."""
    start = clock()
    for _ in range(repeats):
        row.run()
    return (clock() - start) / repeats


def peak_mib(name: str, threads: int) -> float:
    """Return the peak memory of a process that runs only one row, including the interpreter and weights."""
    command = [sys.executable, "-W", "ignore", str(Path(__file__).with_name("rows.py")), name, str(threads)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def times_table(chosen: dict[str, Row], times: dict[str, list[float]], peaks: dict[str, float]) -> str:
    """Return a table of the time of each row, per image and per pixel."""
    lines = []
    for name, row in chosen.items():
        found = spread(times[name])
        pixels = row.num_pixels() if row.num_pixels else 0
        per_pixel = f"{1e9 * found.median / pixels:.0f}" if pixels else "-"
        peak = f"{peaks[name]:.0f}" if name in peaks else "-"
        shown_pixels = f"{pixels:,}" if pixels else "-"
        lines.append([name, found.times(1e3), digits(1 / found.median), shown_pixels, per_pixel, peak])
    return markdown_table(["", "ms per image (quartiles)", "images/s", "pixels", "ns per pixel", "peak MiB"], lines)


def ratios_table(chosen: dict[str, Row], times: dict[str, list[float]]) -> str:
    """Return a table of the expected and measured ratios, and the ratios of the numbers of pixels."""
    lines = []
    for line in expected_lines():
        if line.slow not in times or line.fast not in times:
            continue
        found = ratio(times[line.slow], times[line.fast])
        slow, fast = chosen[line.slow].num_pixels, chosen[line.fast].num_pixels
        by_pixels = f"{slow() / fast():.3g}" if slow and fast else "-"
        lines.append([line.slow, line.fast, found, line, line.verdict(found.median), by_pixels])
    header = ["time of", "relative to", "ratio (quartiles)", "expected", "holds", "ratio of pixels"]
    return markdown_table(header, lines)


def main() -> None:
    """Run the benchmarks and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument(
        "--processor-time",
        action="store_true",
        help="measure processor time instead of wall time; use it with --threads 1 on a busy machine",
    )
    parser.add_argument("--only", nargs="*", help="only rows whose names start with one of these")
    parser.add_argument(
        "--no-memory", action="store_true", help="do not measure peak memory, which starts a process per row"
    )
    parser.add_argument("--output", type=Path, help="default: benchmarks/results/encoders_...md")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    chosen = {name: row for name, row in rows().items() if not options.only or name.startswith(tuple(options.only))}
    load = os.getloadavg()[0]
    clock = time.process_time if options.processor_time else time.perf_counter
    times = measure(chosen, options.rounds, clock)
    peaks = {} if options.no_memory else {name: peak_mib(name, options.threads) for name in chosen}
    installed = ", ".join(f"{name} {version}" for name, version in versions(*LIBRARIES).items())
    clock_name = "processor" if options.processor_time else "wall"
    text = f"""# Visual encoders

One JPEG file of {WIDTH} x {HEIGHT} pixels with {NUM_REGIONS} regions, from the file to the features; channels last;
random weights. {processor()}, {options.threads} threads; {installed}; {options.rounds} rounds of {clock_name} time,
medians with quartiles; load average before the run: {load:.1f}. "Pixels" are those that enter the network.

{times_table(chosen, times, peaks)}

{ratios_table(chosen, times)}
"""
    kind = f"encoders_torch{torch.__version__.partition('+')[0]}_cpu_{options.threads}threads.md"
    output = options.output or RESULTS / kind
    with atomic_write(output) as file:
        file.write(text)
    print(text)  # noqa: T201 # a script


if __name__ == "__main__":
    main()
