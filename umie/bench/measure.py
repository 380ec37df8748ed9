"""Time operations in alternation, round after round, and measure their peak memory."""

from __future__ import annotations

import gc
import math
import random
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

import torch

K = TypeVar("K")
MIN_S = 0.02  # a short operation is repeated for at least this long in each round
WARM_UP_S = 0.1  # an operation is warmed up for this long, and at least once
MAX_REPEATS = 10_000


def synchronize(device: str) -> None:
    """Wait until a device has finished its work."""
    if torch.device(device).type != "cpu":
        torch.accelerator.synchronize(device)


def seconds(run: Callable[[], object], repeats: int, device: str) -> float:
    """Return the mean time of ``repeats`` runs; on CUDA it is measured by stream events."""
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
    """Warm up an operation and return the number of repeats for a round."""
    began, once = time.perf_counter(), math.inf
    while once == math.inf or time.perf_counter() - began < WARM_UP_S:
        once = min(once, seconds(run, 1, device))
    return min(MAX_REPEATS, max(1, math.ceil(MIN_S / max(once, 1e-7))))


@contextmanager
def no_garbage_collection() -> Iterator[None]:
    """Keep Python's garbage collector from running during a measurement."""
    was_on = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def time_rounds(
    runs: Mapping[K, Callable[[], object]],
    *,
    rounds: int,
    device: str,
    times: Mapping[K, list[float]],
    after: Callable[[K], None] = lambda name: None,
    failed: Callable[[K, Exception], None] | None = None,
) -> None:
    """Time operations in rounds, in a new order each round. One that fails is dropped; the others continue.

    Directly before each measurement the operation runs once untimed: the operation before it has filled the caches
    and returned memory to the system, and ratios should compare steady states.

    Args:
        runs: the operations by name; they are warmed up first.
        rounds: the number of rounds.
        device: the device that runs them.
        times: a list for each operation; gets its seconds after each round, so that an interrupt loses no round.
        after: called with the name after each warm-up and measurement, outside the timing.
        failed: called with an operation that raised and the exception; by default the exception is raised.
    """
    repeats: dict[K, int] = {}
    for name, run in runs.items():
        try:
            repeats[name] = repeats_for(run, device)
        except Exception as error:
            if failed is None:
                raise
            failed(name, error)
        after(name)
    order, shuffle = list(repeats), random.Random(0).shuffle
    for _ in range(rounds):
        shuffle(order)
        found: dict[K, float] = {}
        with no_garbage_collection():
            for name in list(order):
                try:
                    runs[name]()
                    found[name] = seconds(runs[name], repeats[name], device)
                except Exception as error:
                    if failed is None:
                        raise
                    order.remove(name)
                    failed(name, error)
                after(name)
        for name, value in found.items():
            times[name].append(value)


def peak_bytes(run: Callable[[], object], device: str) -> int:
    """Return the peak memory that ``run`` allocates through torch, above the memory allocated before it.

    On CUDA it is the allocator's. On a CPU, torch's profiler records every allocation and release, and the peak of
    their running sum is exact; memory that MKL or oneDNN allocate internally is not included. ``run`` must have run
    before, so that one-time allocations are not counted.
    """
    if torch.device(device).type == "cuda":
        synchronize(device)
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        run()
        synchronize(device)
        return int(torch.cuda.max_memory_allocated(device)) - before
    from torch.profiler import ProfilerActivity, profile

    # torch 2.11 warns about lost events unless they are accumulated; there is only one cycle
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True, acc_events=True) as profiler:
        kept = run()
    del kept
    events = [event for event in profiler.profiler.kineto_results.events() if event.name() == "[memory]"]
    held = peak = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        held += event.nbytes()
        peak = max(peak, held)
    return peak
