"""Many texts through `umie extract`: flat memory, kills, and no line lost or doubled.

    python benchmarks/extraction/many.py --model best --data test.jsonl --lines 200000

The records of a file are repeated, each line with an id of its own; a tenth keep their images, and a few lines are bad.
With --texts, the other nine tenths are the lines of a text file.
The process is killed (SIGKILL) at equal distances and started again. Prints texts per second and memory, and fails if
a line is missing, repeated or out of order, or if the memory grows.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from itertools import cycle
from pathlib import Path

import psutil


def write_input(data: Path, texts: Path | None, path: Path, lines: int, bad: int) -> int:
    """Write the lines; return the number of those with an image."""
    records = [json.loads(line) for line in data.read_text(encoding="utf-8").splitlines()]
    others = records if texts is None else [{"text": line} for line in texts.read_text(encoding="utf-8").splitlines()]
    seen, unseen = cycle(records), cycle(others)
    kept = ("text", "image", "regions")
    every = lines // bad if bad else lines + 1
    with_image = 0
    with path.open("w", encoding="utf-8") as file:
        for number in range(lines):
            line = {"text": next(unseen)["text"]}
            if number % 10 == 0:
                line = {key: value for key, value in next(seen).items() if key in kept}
            line["id"] = str(number)
            with_image += "image" in line
            is_bad = number % every == every - 1
            file.write(f"{'{broken' if is_bad else json.dumps(line, ensure_ascii=False)}\n")
    return with_image


def run(command: list[str], part: Path, stop_at: int | None) -> list[tuple[int, int]]:
    """Run the command until it ends or has written a number of lines; return lines and memory, in bytes, by time."""
    log = part.with_name("errors.txt")  # a pipe that nobody reads would fill up
    with log.open("wb") as errors:
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=errors, start_new_session=True)
    watched, found, written, offset = psutil.Process(process.pid), [], 0, 0
    while process.poll() is None:
        time.sleep(0.5)
        if part.exists():
            with part.open("rb") as file:
                file.seek(offset)
                content = file.read()
            offset, written = offset + len(content), written + content.count(b"\n")
            try:
                family = [watched, *watched.children(recursive=True)]
                found.append((written, sum(one.memory_info().rss for one in family)))
            except psutil.Error:
                continue
        if stop_at is not None and written >= stop_at:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            return found
    if process.returncode:
        sys.exit(log.read_text())
    return found


def check(output: Path, lines: int, bad: set[int]) -> None:
    """Exit unless each line has one result, in order, or is one of the bad ones, which are rejected."""
    ids = [json.loads(line)["id"] for line in output.open(encoding="utf-8")]
    expected = [str(number) for number in range(lines) if number not in bad]
    rejected = [json.loads(line)["line"] - 1 for line in output.with_name(f"{output.name}.rejected.jsonl").open()]
    if ids != expected or rejected != sorted(bad):
        sys.exit(f"wrong: {len(ids)} results of {len(expected)}, {len(rejected)} rejected of {len(bad)}")


def say(line: str) -> None:
    """Print a line."""
    print(line, flush=True)  # noqa: T201 # a script


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--data", type=Path, required=True, help="records as JSONL; images are next to it")
    parser.add_argument(
        "--texts", type=Path, help="texts without images, one per line; by default those of the records"
    )
    parser.add_argument("--lines", type=int, default=200_000)
    parser.add_argument("--bad", type=int, default=20, help="number of bad lines")
    parser.add_argument("--kills", type=int, default=2)
    parser.add_argument("--options", nargs=argparse.REMAINDER, default=[], help="further options of umie extract")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        source, output = Path(scratch) / "in.jsonl", Path(scratch) / "out.jsonl"
        with_image = write_input(given.data, given.texts, source, given.lines, given.bad)
        command = [
            sys.executable,
            "-m",
            "umie",
            "extract",
            "--model",
            given.model,
            "-i",
            str(source),
            "-o",
            str(output),
        ]
        command += ["--images", str(given.data.resolve().parent), "--skip-bad", *given.options]
        stops = [round(given.lines * (number + 1) / (given.kills + 1)) for number in range(given.kills)]
        part, seconds, first, done = Path(f"{output}.part"), 0.0, 0, 0
        for stop in [*stops, None]:
            started = time.perf_counter()
            found = run(command, part, stop)
            seconds += time.perf_counter() - started
            # the memory after the first tenth of a run, when everything is loaded, and at its end
            settled = [memory for lines, memory in found if lines >= done + (given.lines - done) * 0.1]
            if len(settled) > 1:
                growth = settled[-1] / settled[0] - 1
                say(
                    f"{found[-1][0]:,} lines: {settled[0] / 1e6:,.0f} MB, then {settled[-1] / 1e6:,.0f} ({growth:+.1%})"
                )
                first = max(first, *settled)
                if growth > 0.1:
                    sys.exit("memory grows")
            done = found[-1][0] if found else done
            say(f"{'killed at' if stop else 'complete:'} {done:,} lines")
        every = given.lines // given.bad if given.bad else given.lines + 1
        check(output, given.lines, set(range(every - 1, given.lines, every)))
        what = f"{with_image:,} with an image, {given.bad} bad, {given.kills} kills"
        say(f"{given.lines:,} lines, {what}: none lost or doubled")
        say(f"{given.lines / seconds:,.0f} texts per second, starts included; at most {first / 1e6:,.0f} MB")


if __name__ == "__main__":
    main()
