"""One run of the encoder benchmarks as a Markdown table with the ratios that are expected of them.

Rows are taken in turn, round after round, so that what else the machine does hits all alike; a ratio is the median of
the ratios within each round. On an idle machine: ``python benchmarks/encoders/report.py --rounds 7``; where others
compute too, ``--threads 1 --processor-time`` disturbs the ratios least.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import math
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import torch
from rows import HEIGHT, NUM_REGIONS, WIDTH, Row, rows

RESULTS = Path(__file__).resolve().parents[1] / "results"
LIBRARIES = ("torch", "torchvision", "open_clip_torch", "pillow")
LEAST_S = 0.05  # a round repeats a short operation for so long


@dataclass(frozen=True)
class Line:
    """What the time of one row, divided by that of another, is expected to be."""

    slow: str
    fast: str
    least: float = 0.0
    most: float = math.inf

    def verdict(self, found: float) -> str:
        """Say whether a ratio is as expected."""
        return "yes" if self.least <= found <= self.most else "**no**"

    def __str__(self) -> str:
        bounds = [f"at least {self.least:g}"] * (self.least > 0) + [f"at most {self.most:g}"] * (self.most < math.inf)
        return ", ".join(bounds)


def expected_lines() -> list[Line]:
    """Return what is expected: of crops as a plain loop takes them, of the encoder's own, and of the backbone."""
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
    """Return for each row its seconds, one for each round; every row is checked and run once before."""
    repeats = {}
    for name, row in chosen.items():
        row.check()
        row.run()
        repeats[name] = max(1, round(LEAST_S / max(seconds(row, 1, clock), 1e-6)))
        print(f"right: {name}", file=sys.stderr, flush=True)  # noqa: T201 # a sign of life: a run takes minutes
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
    """Return the peak memory of a process that does nothing but one row, the interpreter and weights included."""
    command = [sys.executable, "-W", "ignore", str(Path(__file__).with_name("rows.py")), name, str(threads)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def ratio(times: dict[str, list[float]], slow: str, fast: str) -> tuple[float, float, float]:
    """Return by how much ``slow`` takes longer: the median over rounds, the least and the most."""
    found = [one / other for one, other in zip(times[slow], times[fast], strict=True)]
    return median(found), min(found), max(found)


def table(header: list[str], lines: list[list[str]]) -> str:
    """Return a Markdown table; the first column is left-aligned."""
    rule = ["---", *["---:"] * (len(header) - 1)]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in [header, rule, *lines])


def figure(value: float) -> str:
    """Return a number with three digits, or all before the point."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def times_table(chosen: dict[str, Row], times: dict[str, list[float]], peaks: dict[str, float]) -> str:
    """Return what every row took, for an image and for a pixel."""
    lines = []
    for name, row in chosen.items():
        found = times[name]
        pixels = row.num_pixels() if row.num_pixels else 0
        spread = f"{figure(1e3 * median(found))} ({figure(1e3 * min(found))} to {figure(1e3 * max(found))})"
        per_pixel = f"{1e9 * median(found) / pixels:.0f}" if pixels else "-"
        peak = f"{peaks[name]:.0f}" if name in peaks else "-"
        lines.append([name, spread, figure(1 / median(found)), f"{pixels:,}" if pixels else "-", per_pixel, peak])
    return table(["", "ms an image", "images/s", "pixels", "ns a pixel", "peak MiB"], lines)


def ratios_table(chosen: dict[str, Row], times: dict[str, list[float]]) -> str:
    """Return the expected ratios with what was measured, beside the ratio of pixels."""
    lines = []
    for line in expected_lines():
        if line.slow not in times or line.fast not in times:
            continue
        middle, least, most = ratio(times, line.slow, line.fast)
        slow, fast = chosen[line.slow].num_pixels, chosen[line.fast].num_pixels
        by_pixels = f"{slow() / fast():.3g}" if slow and fast else "-"
        found = f"{figure(middle)} ({figure(least)} to {figure(most)})"
        lines.append([line.slow, line.fast, found, str(line), line.verdict(middle), by_pixels])
    return table(["time of", "by that of", "ratio (range)", "expected", "holds", "ratio of pixels"], lines)


def processor() -> str:
    """Return the processor's name."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def main() -> None:
    """Run the benchmarks and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument(
        "--processor-time",
        action="store_true",
        help="in place of wall time: with --threads 1, where others compute too",
    )
    parser.add_argument("--only", nargs="*", help="rows whose names begin with one of these")
    parser.add_argument(
        "--no-memory", action="store_true", help="leave the peaks of memory out: a process for each row"
    )
    parser.add_argument("--output", type=Path, help="default: benchmarks/results/encoders_...md")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    chosen = {name: row for name, row in rows().items() if not options.only or name.startswith(tuple(options.only))}
    load = os.getloadavg()[0]
    clock = time.process_time if options.processor_time else time.perf_counter
    times = measure(chosen, options.rounds, clock)
    peaks = {} if options.no_memory else {name: peak_mib(name, options.threads) for name in chosen}
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in LIBRARIES)
    clock_name = "processor" if options.processor_time else "wall"
    text = f"""# Visual encoders

One JPEG of {WIDTH} x {HEIGHT} pixels with {NUM_REGIONS} regions, from the file to the features; channels last; random
weights. {processor()}, {options.threads} threads; {versions}; {options.rounds} rounds of {clock_name} time,
median (range); load of the machine before: {load:.1f}. "Pixels" are those that enter the network.

{times_table(chosen, times, peaks)}

{ratios_table(chosen, times)}
"""
    kind = f"encoders_torch{torch.__version__.partition('+')[0]}_cpu_{options.threads}threads.md"
    output = options.output or RESULTS / kind
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(text)
    print(text)  # noqa: T201 # a script


if __name__ == "__main__":
    main()
