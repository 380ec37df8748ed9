"""Peak memory of an operation: the most bytes that it holds at a time, above what was there before it."""

from __future__ import annotations

from collections.abc import Callable

import torch


def peak_bytes(run: Callable[[], object], device: str) -> int:
    """Return the peak of the bytes that ``run`` allocates through torch, with what it leaves behind.

    On CUDA the allocator tells it. On a CPU torch's profiler gives each allocation and release with its size, and the
    peak of their running sum is exact; what libraries (MKL, oneDNN) allocate for themselves is not in it.

    Args:
        run: the operation; it has run before, so that nothing is made for the first time.
        device: where it runs.
    """
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        run()
        torch.cuda.synchronize(device)
        return int(torch.cuda.max_memory_allocated(device)) - before
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        kept = run()
    del kept
    events = [event for event in profiler.profiler.kineto_results.events() if event.name() == "[memory]"]
    held = most = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        held += event.nbytes()
        most = max(most, held)
    return most
