"""Times operations in turn, round after round, so that what else the machine does hits all alike."""

from __future__ import annotations

import gc
import math
import random
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch

LEAST_S = 0.02  # a round repeats a short operation for so long
WARM_UP_S = 0.1  # and warms it up for so long, or once
MAX_REPEATS = 10_000


def synchronize(device: str) -> None:
    """Wait until a device has done what it was given."""
    kind = torch.device(device).type
    if kind == "cuda":
        torch.cuda.synchronize(device)
    elif kind != "cpu":
        torch.accelerator.synchronize()


def seconds(run: Callable[[], object], repeats: int, device: str) -> float:
    """Return the time of one run, from ``repeats`` of them; on CUDA by events of the stream."""
    synchronize(device)
    if torch.device(device).type == "cuda":
        event: Any = torch.cuda.Event
        start, end = event(enable_timing=True), event(enable_timing=True)
        start.record()
        for _ in range(repeats):
            run()
        end.record()
        synchronize(device)
        return float(start.elapsed_time(end)) / 1000 / repeats
    began = time.perf_counter()
    for _ in range(repeats):
        run()
    synchronize(device)
    return (time.perf_counter() - began) / repeats


def repeats_for(run: Callable[[], object], device: str) -> int:
    """Warm an operation up, and return how often to repeat it in a round."""
    began, once = time.perf_counter(), math.inf
    while once == math.inf or time.perf_counter() - began < WARM_UP_S:
        once = min(once, seconds(run, 1, device))
    return min(MAX_REPEATS, max(1, math.ceil(LEAST_S / max(once, 1e-7))))


@contextmanager
def no_garbage_collection() -> Iterator[None]:
    """Keep Python from collecting garbage in the middle of a measurement."""
    was_on = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def in_turn(
    runs: Mapping[str, Callable[[], object]],
    *,
    rounds: int,
    device: str,
    times: Mapping[str, list[float]],
    after: Callable[[str], None] = lambda name: None,
    failed: Callable[[str, Exception], None] | None = None,
) -> None:
    """Time operations in rounds, each round in another order; one that fails leaves the others in their rounds.

    Before each measurement the operation runs once untimed, in its place: what ran before it has filled the caches and
    given memory back to the system, and a ratio is one of steady states.

    Args:
        runs: what to time, warmed up here.
        rounds: how often each is timed.
        device: where they run.
        times: for each operation a list; seconds are appended, one figure a round, so that an interrupt loses no
            finished round.
        after: called after each warm-up and each measurement, outside the timing.
        failed: told of an operation that raised, which is not run again; by default it is raised.
    """
    repeats: dict[str, int] = {}
    for name, run in runs.items():
        try:
            repeats[name] = repeats_for(run, device)
        except Exception as error:
            _tell(failed, name, error)
        after(name)
    order, shuffle = list(repeats), random.Random(0).shuffle
    for _ in range(rounds):
        shuffle(order)
        found: dict[str, float] = {}
        with no_garbage_collection():
            for name in list(order):
                try:
                    runs[name]()
                    found[name] = seconds(runs[name], repeats[name], device)
                except Exception as error:
                    order.remove(name)
                    _tell(failed, name, error)
                after(name)
        for name, value in found.items():
            times[name].append(value)


def _tell(failed: Callable[[str, Exception], None] | None, name: str, error: Exception) -> None:
    """Tell of an operation that raised, or raise it again."""
    if failed is None:
        raise error
    failed(name, error)
