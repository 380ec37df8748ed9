"""A load test of `umie serve`: many clients at once, whose answers are compared with those of Extractor.extract.

It starts a server, or asks one that runs (--url, with the same --model). Each client asks for one record after the
other, and tries again if the connection breaks or the server is busy. With --kill, the server is killed (SIGKILL) when
half of the requests are answered, and started again. With --hostile, one more client sends what no server should accept
until the others are done; with --slow, another sends its body at one byte per second. Options after -- are those of
umie serve.

python benchmarks/serving/load.py --model best --data test.txt --format twitter [--requests 1000] [--clients 16]
    [--kill] [--hostile] [--slow] [-- --batch-size 1]
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import contextlib
import io
import itertools
import json
import math
import random
import socket
import subprocess
import sys
import time
import zipfile
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from PIL import Image

from umie.data.source import Source
from umie.extraction import Extractor
from umie.records import Record

PATIENCE_S = 120  # for one request, with all its attempts
PAUSE_S = 0.2  # before another attempt
PROBABILITY, GATE = 1e-3, 1e-4  # by which numbers may differ from one batch to the next
TEXT = "Ann met Bob in Rome"


def say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


@dataclass
class Tally:
    seconds: list[float] = field(default_factory=list)
    attempts: Counter[str] = field(default_factory=Counter)  # that failed, by the reason
    retried: int = 0  # requests that needed several attempts
    lost: int = 0
    wrong: int = 0

    @property
    def done(self) -> int:
        return len(self.seconds) + self.lost

    def percentile(self, share: float) -> float:
        return 1000 * sorted(self.seconds)[math.ceil(share * len(self.seconds)) - 1] if self.seconds else math.nan


class Server:
    """A server process, which can be killed and started again at its address."""

    def __init__(self, model: Path, options: Sequence[str]) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        command = [sys.executable, "-m", "umie", "serve", "--model", str(model), "--port", str(self.port), *options]
        self._command = command

    async def start(self) -> None:
        self.process = subprocess.Popen(self._command, stdout=subprocess.DEVNULL)
        async with httpx.AsyncClient(base_url=self.url) as client:
            while True:
                if self.process.poll() is not None:
                    raise SystemExit(f"the server ended with exit code {self.process.returncode}")
                with contextlib.suppress(httpx.TransportError):
                    if (await client.get("/health")).status_code == 200:
                        return
                await asyncio.sleep(PAUSE_S)

    async def kill_and_restart(self) -> None:
        self.process.kill()
        self.process.wait()
        await self.start()

    def stop(self) -> int:
        self.process.terminate()
        return self.process.wait()


def as_asked(record: Record) -> Record:
    """Return a record without its annotation, and without images that do not exist."""
    if not all((path := record.path("image", number)) and path.is_file() for number in range(len(record.images))):
        return Record(record.text)
    return Record(
        record.text,
        record.image,
        record.regions,
        image_folder=record.image_folder,
        more_images=record.more_images,
    )


def payload_of(record: Record) -> dict[str, Any]:
    data: dict[str, Any] = {"text": record.text}
    paths = [record.path("image", number) for number in range(len(record.images))]
    if paths:
        data["images"] = [base64.b64encode(path.read_bytes()).decode() for path in paths if path is not None]
    if record.regions:
        data["regions"] = [{"box": list(region.box), "image": region.image} for region in record.regions]
    return data


def is_same(found: Any, expected: Any, tolerance: float = 0) -> bool:
    """Return whether answers are equal; file names of images are not compared."""
    if isinstance(found, dict) and isinstance(expected, dict):
        skipped = {"image", "images", "id", "source"}
        return found.keys() - skipped == expected.keys() - skipped and all(
            is_same(found[key], expected[key], {"probability": PROBABILITY, "gate": GATE}.get(key, tolerance))
            for key in found.keys() - skipped
        )
    if isinstance(found, list) and isinstance(expected, list):
        return len(found) == len(expected) and all(map(is_same, found, expected))
    if isinstance(found, float) and isinstance(expected, float):
        return abs(found - expected) <= tolerance
    return bool(found == expected)


async def ask(client: httpx.AsyncClient, payload: dict[str, Any], tally: Tally) -> dict[str, Any] | None:
    """Return the answer, after as many attempts as it takes; None if there is none in time, or an error."""
    began, attempts = time.perf_counter(), 0
    while time.perf_counter() - began < PATIENCE_S:
        attempts += 1
        tally.retried += attempts == 2
        try:
            response = await client.post("/extract", json=payload)
        except httpx.TransportError as error:
            tally.attempts[type(error).__name__] += 1
            await asyncio.sleep(PAUSE_S)
            continue
        if response.status_code == 200:
            tally.seconds.append(time.perf_counter() - began)
            found: dict[str, Any] = response.json()
            return found
        tally.attempts[str(response.status_code)] += 1
        if response.status_code not in (503, 504):
            say(f"refused: {response.text}")
            break
        await asyncio.sleep(float(response.headers.get("retry-after", PAUSE_S)))
    tally.lost += 1
    return None


async def client_of(url: str, asked: Iterator[tuple[Record, Any]], tally: Tally) -> None:
    async with httpx.AsyncClient(base_url=url, timeout=PATIENCE_S) as client:
        for record, expected in asked:
            found = await ask(client, payload_of(record), tally)
            if found is not None and not is_same(found, expected):
                tally.wrong += 1
                say(f"wrong: {json.dumps(found)}\n  not: {json.dumps(expected)}")


async def in_chunks(number: int) -> AsyncIterator[bytes]:
    for _ in range(number):
        yield b"x" * 1_000_000


def hostile_requests() -> Iterator[tuple[str, int, dict[str, Any] | None]]:
    """Yield what is sent, the status that it should have, and the arguments of httpx; None for 100 MB in chunks."""

    def image(content: bytes) -> dict[str, Any]:
        return {"json": {"text": TEXT, "image": base64.b64encode(content).decode()}}

    def saved(picture: Image.Image, kind: str) -> bytes:
        file = io.BytesIO()
        picture.save(file, kind)
        return file.getvalue()

    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("a.png", b"0" * 10_000_000)
    noise = Image.frombytes("RGB", (200, 200), random.Random(0).randbytes(120_000))
    as_json = {"content-type": "application/json"}
    yield "bomb: PNG of 20,000 x 20,000 pixels", 422, image(saved(Image.new("1", (20_000, 20_000)), "PNG"))
    yield "bomb below the limit of Pillow, 9,000 x 9,000", 422, image(saved(Image.new("1", (9_000, 9_000)), "PNG"))
    yield "truncated JPEG", 422, image(saved(noise, "JPEG")[:10_000])
    yield "zip in place of an image", 422, image(archive.getvalue())
    yield "zip as a file of a form", 422, {"data": {"text": TEXT}, "files": {"image": archive.getvalue()}}
    yield "path in place of an image", 422, {"json": {"text": TEXT, "image": "/etc/passwd"}}
    yield "URL in place of an image", 422, {"json": {"text": TEXT, "image": "http://127.0.0.1:1/a.png"}}
    yield "100 MB", 413, {"content": b"x" * 100_000_000, "headers": as_json}
    yield "100 MB in chunks", 413, None
    yield "wrong content type", 415, {"content": b"text=Ann", "headers": {"content-type": "text/csv"}}
    yield "not JSON", 400, {"content": b'{"text": ', "headers": as_json}
    yield "JSON of 1,000,000 levels", 400, {"content": b"[" * 1_000_000, "headers": as_json}
    yield "text of 1,000,000 characters", 422, {"json": {"text": "x" * 1_000_000}}
    yield "unknown task", 422, {"json": {"text": TEXT, "tasks": ["x"]}}


async def send_hostile(url: str, answers: dict[str, Counter[str]]) -> None:
    """Send hostile requests until canceled, and count the answers to each kind."""
    requests = list(hostile_requests())
    async with httpx.AsyncClient(base_url=url, timeout=PATIENCE_S) as client:
        for what, expected, content in itertools.cycle(requests):
            arguments = {"content": in_chunks(100)} if content is None else content
            with contextlib.suppress(httpx.TransportError):  # while the server is down
                response = await client.post("/extract", **arguments)
                is_right = response.status_code == expected and set(response.json()) == {"error"}
                answer = str(expected) if is_right else f"{response.status_code} in place of {expected}"
                answers.setdefault(what, Counter())[answer] += 1
            await asyncio.sleep(PAUSE_S)


async def send_slowly(url: str) -> str:
    """Send a body at one byte per second until there is an answer, and return its first line and when it came."""
    port = httpx.URL(url).port
    began = time.perf_counter()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    head = b"POST /extract HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 1000\r\n\r\n"
    writer.write(head)
    answer = asyncio.ensure_future(reader.readline())
    while not answer.done():
        with contextlib.suppress(ConnectionError):
            writer.write(b" ")
            await writer.drain()
        await asyncio.wait([answer], timeout=1)
    line = answer.result().decode().strip() if answer.exception() is None else repr(answer.exception())
    writer.close()
    return f"{line or 'the connection was closed'} after {time.perf_counter() - began:.1f} s"


async def load(arguments: argparse.Namespace, asked: Sequence[tuple[Record, Any]]) -> None:
    server = None if arguments.url else Server(arguments.model, arguments.options)
    if server is not None:
        await server.start()
    url = arguments.url or server.url
    tally, answers = Tally(), dict[str, Counter[str]]()
    remaining = iter(asked)
    began = time.perf_counter()
    hostile = asyncio.create_task(send_hostile(url, answers)) if arguments.hostile else None
    clients = [asyncio.create_task(client_of(url, remaining, tally)) for _ in range(arguments.clients)]
    if arguments.kill:
        while tally.done < len(asked) // 2:
            await asyncio.sleep(0.01)
        killed = time.perf_counter()
        await server.kill_and_restart()
        say(f"killed and started again: {time.perf_counter() - killed:.1f} s")
    slow = asyncio.create_task(send_slowly(url)) if arguments.slow else None
    await asyncio.gather(*clients)
    seconds = time.perf_counter() - began
    if hostile is not None:
        hostile.cancel()
    say(
        f"{len(asked):,} requests from {arguments.clients} clients: {len(asked) / seconds:.1f} per second, "
        f"p50 {tally.percentile(0.5):.0f} ms, p99 {tally.percentile(0.99):.0f} ms, "
        f"lost {tally.lost}, wrong {tally.wrong}"
    )
    failed = ", ".join(f"{reason}: {number}" for reason, number in sorted(tally.attempts.items()))
    say(f"attempts that failed: {sum(tally.attempts.values())} ({failed or 'none'}), of {tally.retried} requests")
    async with httpx.AsyncClient(base_url=url) as client:
        lines = (await client.get("/metrics")).text.splitlines()
    values = dict(line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
    batches, records = float(values["umie_batch_records_count"]), float(values["umie_batch_records_sum"])
    memory = float(values["process_resident_memory_bytes"]) / 1e6
    say(f"server: {records / max(batches, 1):.1f} records per batch, {memory:.0f} MB of memory")
    for what, found in answers.items():
        say(f"hostile: {what}: {', '.join(f'{answer} ({number} times)' for answer, number in found.items())}")
    if slow is not None:
        say(f"slow client: {await slow}")
    if server is not None:
        began = time.perf_counter()
        say(f"SIGTERM: exit code {server.stop()} after {time.perf_counter() - began:.1f} s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--format", default="jsonl")
    parser.add_argument("--requests", type=int, default=1000)
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--url", help="A server that runs, in place of one that is started.")
    parser.add_argument("--kill", action="store_true")
    parser.add_argument("--hostile", action="store_true")
    parser.add_argument("--slow", action="store_true")
    parser.add_argument("options", nargs="*", help="After --: options of umie serve.")
    arguments = parser.parse_args()
    if arguments.url and arguments.kill:
        parser.error("--kill needs a server that is started here")
    read = Source(arguments.data, arguments.format).records()
    bare = [as_asked(record) for record in itertools.islice(read, arguments.requests)]
    extractor = Extractor.from_pretrained(arguments.model)
    began = time.perf_counter()
    expected = [extractor.extract(record).to_json() for record in bare]
    say(f"Extractor.extract, one at a time: {len(bare) / (time.perf_counter() - began):.1f} per second")
    del extractor
    asked = list(itertools.islice(itertools.cycle(zip(bare, expected, strict=True)), arguments.requests))
    asyncio.run(load(arguments, asked))


if __name__ == "__main__":
    main()
