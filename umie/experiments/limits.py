"""Limits of a cell, and how they are written: ``2h``, ``1h 30m``, ``8GB``."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ByteSize, TypeAdapter, ValidationError

from umie.configs import ConfigError, errors_in
from umie.errors import UmieError, shown

_UNITS = {"d": 86400.0, "h": 3600.0, "m": 60.0, "min": 60.0, "s": 1.0}
_PART = r"(\d+(?:\.\d+)?)\s*(d|h|min|m|s)\s*"
_MAX_SECONDS = 366 * 86400.0


@dataclass(frozen=True)
class Limits:
    """What a job may use at most; None is no limit."""

    time_s: float | None = None
    memory_bytes: int | None = None  # resident, of its process and the processes that it starts


def read_duration(name: str, value: Any) -> float | None:
    """Return a duration with units, such as ``90s`` or ``1h 30m``, in seconds; raise UmieError if it is none."""
    if value is None:
        return None
    seconds = 0.0
    if isinstance(value, str) and re.fullmatch(f"(?:{_PART})+", value.strip().lower()):
        seconds = sum(float(number) * _UNITS[unit] for number, unit in re.findall(_PART, value.lower()))
    if not 0 < seconds <= _MAX_SECONDS:
        raise UmieError(f"{name} is {shown(value)}: use a time with a unit (s, m, h, d), such as 90m or 1h 30m")
    return seconds


def read_size(name: str, value: Any) -> int | None:
    """Return a size with a unit, such as ``8GB`` or ``512MiB``, in bytes; raise UmieError if it is none."""
    if value is None:
        return None
    try:
        size = int(TypeAdapter(ByteSize).validate_python(value.strip() if isinstance(value, str) else None))
    except (ValidationError, ValueError, OverflowError):
        size = 0
    if not 1_000_000 <= size < 1 << 60 or str(value).strip().isdecimal():
        raise UmieError(f"{name} is {shown(value)}: use a size with a unit (MB, GB, GiB) of at least 1 MB, such as 8GB")
    return size


def read_limits(values: Mapping[str, Any]) -> Limits:
    """Return the limits in the values of a grid file; raise UmieError, with all errors, if one is invalid."""
    errors = [
        *errors_in(read_duration, "time_limit", values.get("time_limit")),
        *errors_in(read_size, "memory_limit", values.get("memory_limit")),
    ]
    if errors:
        raise ConfigError(errors)
    return Limits(
        read_duration("time_limit", values.get("time_limit")), read_size("memory_limit", values.get("memory_limit"))
    )


def duration_text(seconds: float) -> str:
    """Return a duration in its largest units, e.g. ``1 h 30 min``."""
    parts = []
    left = seconds
    for unit, size in (("d", 86400.0), ("h", 3600.0), ("min", 60.0)):
        if left >= size:
            parts.append(f"{int(left // size)} {unit}")
            left %= size
    return " ".join([*parts, *([f"{left:g} s"] if left or not parts else [])])


def size_text(num_bytes: int) -> str:
    """Return a size in its largest unit, e.g. ``8 GB`` or ``1.5 GiB``."""
    for base, units in ((1000, ("TB", "GB", "MB")), (1024, ("TiB", "GiB", "MiB"))):
        for power, unit in zip((4, 3, 2), units, strict=True):
            if num_bytes >= base**power and num_bytes * 100 % base**power == 0:
                number = f"{num_bytes / base**power:.2f}".rstrip("0").rstrip(".")  # `:g` may have exponents
                return f"{number} {unit}"
    return f"{num_bytes / 1e6:.1f} MB"
