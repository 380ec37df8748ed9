"""Where a benchmark ran: device, processor, threads, versions and load, as they stand in its results."""

from __future__ import annotations

import datetime
import importlib.metadata
import os
import platform
from pathlib import Path
from typing import Any

import torch

import umie

LIBRARIES = ("torch", "transformers", "xformers", "x-transformers", "flamingo-pytorch")


def device_reason(device: str) -> str | None:
    """Return the reason why nothing runs on a device here, as torch gives it; None where something does."""
    try:
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        return str(error).strip().splitlines()[0]
    return None


def environment(device: str, threads: int) -> dict[str, Any]:
    """Return what a reader of the figures must know about the machine; call it before anything is measured.

    Args:
        device: where the operations run; it may be one that is not here.
        threads: of torch.
    """
    return {
        "device": device,
        "device_name": _device_name(device),
        "processor": processor(),
        "cores": os.cpu_count(),
        "threads": threads,
        "load": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "umie": umie.__version__,
        "versions": {name: _version(name) for name in LIBRARIES} | {"python": platform.python_version()},
        "cuda": torch.version.cuda,
        "float32_matmul_precision": torch.get_float32_matmul_precision(),
        "platform": platform.platform(),
    }


def processor() -> str:
    """Return the processor's name."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def _device_name(device: str) -> str:
    if torch.device(device).type == "cuda" and device_reason(device) is None:
        return str(torch.cuda.get_device_name(device))
    return processor() if torch.device(device).type == "cpu" else device


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None
