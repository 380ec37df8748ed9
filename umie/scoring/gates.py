"""gate_summary: the distribution of a gate in a few numbers."""

from __future__ import annotations

import statistics
from collections.abc import Sequence


def gate_summary(gates: Sequence[float]) -> dict[str, float]:
    """Return statistics of at least one gate; ``closed`` is the share of gates <= 0, which block the visual path."""
    return {
        "median": statistics.median(gates),
        "mean": statistics.mean(gates),
        "min": min(gates),
        "max": max(gates),
        "closed": sum(gate <= 0 for gate in gates) / len(gates),
    }
