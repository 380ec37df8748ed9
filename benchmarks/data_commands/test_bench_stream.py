"""Speed and memory of the data commands: run this file for a table.

The table shows lines per second and peak memory of convert, validate and stats for 10,000, 100,000 and 1,000,000 lines,
or for the numbers of lines given as arguments. `make bench` measures the first two and checks the growth of memory.
"""

import json
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

LINES = (10_000, 100_000, 1_000_000)
GROWTH_MIB = {"convert": 8, "validate": 32, "stats": 8}  # from 10,000 to 100,000 lines; validate stores all ids
WORDS = [
    "the",
    "a",
    "in",
    "with",
    "Ann",
    "Lee",
    "Rome",
    "visited",
    "today",
    "park",
    "NASA",
    "über",
    "🙂",
    "said",
    "new",
]
PROGRAM = """
import sys
from pathlib import Path
from umie.cli import main
peak = sys.argv.pop(1)
try:
    main()
finally:
    status = Path("/proc/self/status").read_text().splitlines()  # of this process only, unlike ru_maxrss
    Path(peak).write_text(next(line.split()[1] for line in status if line.startswith("VmHWM")))
"""
COMMANDS = {
    "convert": ("convert", "--input", "{file}", "--output", "{folder}/out.jsonl"),
    "validate": ("validate", "{file}"),
    "stats": ("stats", "{file}", "--json"),
}


def write_lines(path: Path, number: int) -> None:
    """Write records of the length of tweets, with an image, two entities, a relation, tasks and a label schema."""
    generator = random.Random(0)
    (path.parent / "image.jpg").write_bytes(b"not read")
    with path.open("w", encoding="utf-8") as file:
        for index in range(number):
            words = generator.choices(WORDS, k=16)
            starts = [sum(map(len, words[:place])) + place for place in (1, 7)]
            mentions = [
                {"span": [start, start + len(words[place])], "text": words[place]}
                for start, place in zip(starts, (1, 7), strict=True)
            ]
            record = {
                "id": f"record-{index}",
                "text": " ".join(words),
                "image": "image.jpg",
                "entities": [{"type": generator.choice(("person", "location")), **mention} for mention in mentions],
                "relations": [{"type": "peer", "head": mentions[0], "tail": mentions[1]}],
                "tasks": ["mner", "mre"],
                "labels": {"mner": ["person", "location"], "mre": ["peer", "none"]},
            }
            file.write(json.dumps(record, ensure_ascii=False) + "\n")


def measure(command: str, file: Path) -> tuple[float, float, float]:
    """Run a command in a separate process; return wall-clock seconds, CPU seconds, and peak memory in MiB."""
    with tempfile.TemporaryDirectory() as folder:
        peak = Path(folder, "peak")
        words = [word.format(file=file, folder=folder) for word in COMMANDS[command]]
        start, spent = time.perf_counter(), os.times()
        subprocess.run(
            [sys.executable, "-c", PROGRAM, str(peak), "data", *words], check=True, stdout=subprocess.DEVNULL
        )
        end = os.times()
        processor = end.children_user + end.children_system - spent.children_user - spent.children_system
        return time.perf_counter() - start, processor, int(peak.read_text()) / 1024


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("lines")
    result = {number: folder / f"{number}.jsonl" for number in LINES[:2]}
    for number, path in result.items():
        write_lines(path, number)
    return result


@pytest.mark.parametrize("command", COMMANDS)
def test_stream(benchmark, files, command):
    few, many = LINES[:2]
    *_, before = measure(command, files[few])
    _, processor, peak = benchmark.pedantic(measure, (command, files[many]), rounds=1)
    benchmark.extra_info.update(lines_per_second=round(many / processor), peak_mib=round(peak, 1))
    assert peak < before + GROWTH_MIB[command]


def main() -> None:
    """Print the table."""
    sizes = [int(word.replace(",", "")) for word in sys.argv[1:]] or LINES
    sys.stdout.write(
        "| command | lines | seconds | CPU seconds | lines per CPU second | peak MiB |\n|---|---|---|---|---|---|\n"
    )
    with tempfile.TemporaryDirectory() as folder:
        for number in sizes:
            path = Path(folder, f"{number}.jsonl")
            write_lines(path, number)
            for command in COMMANDS:
                seconds, processor, peak = measure(command, path)
                speed = f"{seconds:.1f} | {processor:.1f} | {number / processor:,.0f}"
                sys.stdout.write(f"| {command} | {number:,} | {speed} | {peak:.1f} |\n")
                sys.stdout.flush()
            path.unlink()


if __name__ == "__main__":
    main()
