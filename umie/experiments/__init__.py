"""Experiments: runs and grids of runs from config files; ``load`` reads the results of a grid."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from umie.experiments.grid_results import GridResults, load

__all__ = ["GridResults", "load"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        from umie.experiments import grid_results

        return getattr(grid_results, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
