"""The machine of a benchmark: device, processor, threads, versions, and load."""

from __future__ import annotations

import datetime
import os
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from umie.versions import versions

LIBRARIES = ("torch", "transformers", "xformers", "x-transformers", "flamingo-pytorch")


def device_error(device: str) -> str | None:
    """Return torch's reason why a device is not available, or None if it is."""
    try:
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        return str(error).strip().splitlines()[0]
    return None


def environment(device: str, threads: int) -> dict[str, Any]:
    """Return the facts about the machine that times depend on; the device does not need to be available.

    Call it before measuring: it records the load.
    """
    name = processor() if torch.device(device).type == "cpu" else device
    if torch.device(device).type == "cuda" and device_error(device) is None:
        name = torch.cuda.get_device_name(device)
    return {
        "device": device,
        "device_name": name,
        "processor": processor(),
        "cores": os.cpu_count(),
        "threads": threads,
        "load": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "versions": versions(*LIBRARIES),
        "cuda": torch.version.cuda,
        "float32_matmul_precision": torch.get_float32_matmul_precision(),
        "platform": platform.platform(),
    }


def described(environment: Mapping[str, Any]) -> str:
    """Return an environment as part of a sentence."""
    installed = ", ".join(f"{name} {version}" for name, version in environment["versions"].items() if version)
    return (
        f"{environment['date'][:10]}, {environment['device_name']} ({environment['device']}), "
        f"{environment['threads']} threads of {environment['processor']}; {installed}; "
        f"load average before the run: {environment['load']}"
    )


def processor() -> str:
    """Return the name of the processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
