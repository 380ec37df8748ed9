"""Experiments: runs and grids of runs from config files; ``load`` reads the results of a grid."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from umie.experiments.expand import read_grid, read_run
    from umie.experiments.grid_results import GridResults, load
    from umie.experiments.scheduler import run_grid

_MODULES = {
    "expand": ("read_grid", "read_run"), "grid_results": ("GridResults", "load"), "scheduler": ("run_grid",),
}  # fmt: skip

__all__ = ["GridResults", "load", "read_grid", "read_run", "run_grid"]


def __getattr__(name: str) -> Any:
    for module, names in _MODULES.items():
        if name in names:
            return getattr(importlib.import_module(f"{__name__}.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
