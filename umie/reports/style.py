"""The look of every figure: one canvas without a display, one palette, one way to save."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from umie.errors import UmieError
from umie.files import atomic_write

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BLUE, ORANGE, GRAY, LIGHT_BLUE = "#1b6ca8", "#b5651d", "#888888", "#7aa6c2"
GRID = "#e3e3e3"
FORMATS = (".png", ".pdf", ".svg")


def new_figure(width: float, height: float) -> Figure:
    """Return an empty figure of a size in inches, drawn without pyplot, so that no display and no state is needed."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def clean_axes(axes: Any, *, grid: str = "y") -> None:
    """Give axes the common look: light grid lines behind the data, no frame at the top and on the right."""
    axes.grid(axis=grid, color=GRID, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=8)


def save_figure(figure: Figure, path: str | Path, *, dpi: int = 150) -> None:
    """Write a figure as PNG, PDF or SVG, by the ending of its name.

    Raises:
        UmieError: another ending, or the file cannot be written.
    """
    ending = Path(path).suffix.lower()
    if ending not in FORMATS:
        raise UmieError(f"{path}: a figure is written as {', '.join(FORMATS)}")
    with atomic_write(path, "wb") as file:
        figure.savefig(file, format=ending[1:], dpi=dpi)
