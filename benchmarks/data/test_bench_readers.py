"""Time per record of every reader for inputs of size 1, 10 and 100: `make bench`, or run this file for tables.

A reader is linear if the numbers of a row are equal. The second table shows the time per byte for pathological inputs.
A reader is only timed if it returns the right number of records.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests" / "data"))  # contains samples.py

import samples

from umie import data
from umie.errors import UmieError

SCALES = (1, 10, 100)
NUM_RECORDS = 100  # at scale 1


def many(sample: samples.Sample, num_records: int, folder: Path) -> tuple[Path, dict[str, str]]:
    """Write a sample with repeated records, which have distinct names if the format needs them."""
    path, options = sample.write(folder)
    content = sample.files[sample.main]
    if sample.main == "text.json":
        news = [{**samples.NEWS[0], "sentence_id": f"S_{number}"} for number in range(num_records)]
        images = {f"P_{number}": samples.NEWS_IMAGES["P_1"] for number in range(num_records)}
        path.write_text(json.dumps(news))
        (folder / "image_multimedia_event.json").write_text(json.dumps(images))
        lines = [f"S_{number}\tP_{number}.jpg\tJustice:Arrest-Jail\n" for number in range(num_records)]
        (folder / "crossmedia_coref.txt").write_text("".join(lines))
    elif sample.main == "image.json":
        path.write_text(json.dumps({f"P_{n}": samples.NEWS_IMAGES["P_1"] for n in range(num_records)}))
    elif sample.format == "swig":
        images = {f"{number}.jpg": samples.SITUATIONS["arresting_1.jpg"] for number in range(num_records)}
        path.write_text(json.dumps(images))
    else:
        lines = content.rstrip(b"\n") + (b"\n\n" if content.startswith(b"IMGID") else b"\n")
        path.write_bytes(lines * (num_records // sample.num_records))
    if sample.format == "m2e2":
        for number in range(num_records):
            if not (folder / f"P_{number}.jpg").exists():
                os.link(folder / "P_1.jpg", folder / f"P_{number}.jpg")
    return path, options


def consume(sample_format: str, path: Path, options: dict[str, str]) -> int:
    """Read a file and return the number of its records."""
    return sum(1 for _ in data.read(sample_format, path, **options))


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("sample", samples.SAMPLES, ids=samples.IDS)
def test_reader(benchmark: Any, sample: samples.Sample, scale: int, tmp_path: Path) -> None:
    num_records = NUM_RECORDS * scale
    path, options = many(sample, num_records, tmp_path)
    assert consume(sample.format, path, options) == num_records
    benchmark.group = f"{sample.format} {sample.main}"
    benchmark.extra_info["records"] = num_records
    benchmark.pedantic(consume, (sample.format, path, options), rounds=3)


def in_ace(tokens: list[str], mentions: list[dict[str, Any]]) -> bytes:
    """Return a line of ACE with only these entities."""
    line = {**samples.SENTENCE, "tokens": tokens, "entity_mentions": mentions}
    return samples.dumped({**line, "relation_mentions": [], "event_mentions": []})


def in_jsonl(text: str, entities: list[dict[str, Any]]) -> bytes:
    """Return a line of JSONL with only these entities."""
    return samples.dumped({"text": text, "entities": entities})


def in_news(num_words: int, mention: dict[str, Any]) -> bytes:
    """Return a sentence of M2E2 with as many events as words."""
    words = [*samples.NEWS[0]["words"], *["x"] * num_words]
    events = [{**samples.NEWS[0]["golden-event-mentions"][0], **mention}] * num_words
    return samples.dumped([{"sentence_id": "S", "words": words, "golden-event-mentions": events}])


def entity(start: int, end: int, **named: Any) -> dict[str, Any]:
    return {"id": f"E{start}", "entity_type": "PER", "start": start, "end": end, **named}


def spans(num: int, length: int) -> list[dict[str, Any]]:
    return [{"type": "person", "span": [index, index + length]} for index in range(num)]


# name -> format, and the content for a size
PATHOLOGICAL: dict[str, tuple[str, Callable[[int], bytes]]] = {
    "one line of characters": ("twitter", lambda n: b"IMGID:1\n" + b"x" * 100 * n),
    "one long token": ("twitter", lambda n: b"IMGID:1\n" + b"x" * min(10 * n, 90_000) + b"\tB-PER\n"),
    "a tweet of entities": ("twitter", lambda n: b"IMGID:1\n" + b"x\tB-PER\n" * n),
    "tweets of unknown tags": ("fmnerg", lambda n: b"IMGID:1\nx\tO\tB-politicians\n\n" * (n // 10)),
    "tokens outside a tweet": ("snap", lambda n: b"x\tO\n" * n),
    "headers only": ("gmner", lambda n: b"IMGID:1\n" * n),
    "tabs": ("twitter", lambda n: b"IMGID:1\n" + b"\t" * 10 * n),
    "nested lists": ("mnre", lambda n: b"[" * 10 * n),
    "nested minus signs": ("mnre", lambda n: b"-" * 10 * n + b"1"),
    "adjacent strings": ("mnre", lambda n: b"{'token': [" + b"'xxxxxxxxx'" * n + b"]}"),
    "lines without a dict": ("mnre", lambda n: b"[1]\n" * n),
    "a dict of keys": ("mnre", lambda n: repr({**samples.PAIR, **dict.fromkeys(map(str, range(n)))}).encode()),
    "nested objects": ("ace", lambda n: b'{"tokens":' * 10 * n),
    "a sentence of entities": ("ace", lambda n: in_ace(["x"] * n, [entity(i, i + 1, text="x") for i in range(n)])),
    "entities of the whole text, without a name": ("ace", lambda n: in_ace(["x"] * n, [entity(0, n)] * n)),
    "entities of the whole text, with a short name": ("ace", lambda n: in_ace(["x"] * n, [entity(0, n, text="x")] * n)),
    "digits": ("ace", lambda n: b'{"tokens": ' + b"1" * 10 * n + b"." + b"1" * 10 * n),
    "a sentence of events": ("m2e2", lambda n: in_news(n, {})),
    "triggers of the whole text": ("m2e2", lambda n: in_news(n, {"trigger": {"start": 0, "end": n}})),
    "roles and frames": (
        "swig",
        lambda n: samples.dumped(
            {
                "1.jpg": {
                    **samples.SITUATIONS["arresting_1.jpg"],
                    "bb": {str(i): [0, 0, 9, 9] for i in range(n)},
                    "frames": [{}] * n,
                }
            }
        ),
    ),
    "a text of entities": ("jsonl", lambda n: in_jsonl("x" * (n + 1), spans(n, 1))),
    "entities of half the text": ("jsonl", lambda n: in_jsonl("x" * 2 * n, spans(n, n))),
}


def read_pathological(name: str, path: Path) -> None:
    """Read a file and ignore all errors."""
    options = {"mapping": path.with_name("ace_sr_mapping.txt")} if PATHOLOGICAL[name][0] == "swig" else {}
    try:
        for _ in data.read(PATHOLOGICAL[name][0], path, on_error=lambda error: None, **options):
            pass
    except UmieError:
        pass


def write_pathological(name: str, scale: int, folder: Path) -> Path:
    path = folder / "input"
    path.write_bytes(PATHOLOGICAL[name][1](100 * scale))
    (folder / "ace_sr_mapping.txt").write_text(samples.MAPPING)
    return path


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("name", PATHOLOGICAL)
def test_pathological(benchmark: Any, name: str, scale: int, tmp_path: Path) -> None:
    path = write_pathological(name, scale, tmp_path)
    benchmark.group = f"{PATHOLOGICAL[name][0]}: {name}"
    benchmark.extra_info["bytes"] = path.stat().st_size
    benchmark.pedantic(read_pathological, (name, path), rounds=3)


def seconds(call: Callable[[], object]) -> float:
    """Return the minimum time of three calls."""
    times = []
    for _ in range(3):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return min(times)


def main() -> None:
    """Print both tables."""
    out = sys.stdout.write
    out(f"microseconds per record at {', '.join(str(NUM_RECORDS * scale) for scale in SCALES)} records\n")
    for sample, identifier in zip(samples.SAMPLES, samples.IDS, strict=True):
        row = []
        for scale in SCALES:
            with tempfile.TemporaryDirectory() as folder:
                path, options = many(sample, NUM_RECORDS * scale, Path(folder))
                consume(sample.format, path, options)
                taken = seconds(partial(consume, sample.format, path, options))
                row.append(f"{taken / (NUM_RECORDS * scale) * 1e6:8.1f}")
        out(f"{identifier:50} {' '.join(row)}\n")
    out("nanoseconds per byte for size 1, 10 and 100, and bytes for size 100\n")
    for name in PATHOLOGICAL:
        row = []
        for scale in SCALES:
            with tempfile.TemporaryDirectory() as folder:
                path = write_pathological(name, scale, Path(folder))
                size = path.stat().st_size
                row.append(f"{seconds(partial(read_pathological, name, path)) / size * 1e9:9.0f}")
        out(f"{PATHOLOGICAL[name][0] + ': ' + name:55} {' '.join(row)} {size:10,} bytes\n")


if __name__ == "__main__":
    main()
