"""The style of every figure: size, colors, axes, legend and output. No other module imports matplotlib."""

from __future__ import annotations

import importlib.util
import io
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from umie.errors import UmieError, import_extra
from umie.files import atomic_write
from umie.reports.figure_text import prepare_texts

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.figure import Figure

BLUE, ORANGE, GRAY, LIGHT_BLUE = "#1b6ca8", "#b5651d", "#888888", "#7aa6c2"
GRID = "#e3e3e3"
VECTOR = (".pdf", ".svg")
FORMATS = (".png", *VECTOR)
_SVG_IDS = re.compile(r' id="[A-Za-z][\w.]*_\d+"')  # names of parts of a figure, which repeat in each figure of a page
DASHED: dict[str, Any] = {"color": "black", "linewidth": 1.1, "linestyle": "--"}
DOTTED: dict[str, Any] = {"color": "black", "linewidth": 1.6, "linestyle": ":"}
MARKERS = "os^Dv<>P*X"
# series of a line or bar chart: Okabe and Ito's colors, which color-blind readers can distinguish
COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7f7f7f", "#8c564b", "#5d3a9b", "#a0a000")


def check_figures(what: str = "a report, which has figures,") -> None:
    """Raise UmieError if figures cannot be drawn; called before the work whose results they show."""
    if importlib.util.find_spec("matplotlib") is None:
        import_extra("matplotlib", "plots", what)


def new_figure(width: float, height: float) -> Figure:
    """Return an empty figure of a size in inches; it needs neither a display nor pyplot's global state."""
    matplotlib = import_extra("matplotlib.backends.backend_agg", "plots", "a figure")
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    matplotlib.FigureCanvasAgg(figure)
    return figure


def series_style(number: int) -> dict[str, Any]:
    """Return the color and marker of the n-th line; they repeat after ten."""
    return {"color": series_color(number), "marker": MARKERS[number % len(MARKERS)]}


def series_color(number: int) -> str:
    """Return the color of the n-th series; the colors repeat after ten."""
    return COLORS[number % len(COLORS)]


def panels(figure: Figure, number: int, columns: int, **options: Any) -> list[Any]:
    """Return the axes of a number of panels, row by row; ``options`` are those of ``Figure.subplots``."""
    grid = figure.subplots(-(-number // columns), columns, squeeze=False, **options)
    for unused in grid.flat[number:]:
        unused.set_visible(False)
    return list(grid.flat[:number])


def clean_axes(axes: Any, *, grid: str = "y", title: str | None = None, x: str = "", y: str = "") -> None:
    """Apply the common style to axes: light grid lines below the data, no frame at the top and right, small labels."""
    axes.grid(axis=grid, color=GRID, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=8)
    if title is not None:
        axes.set_title(title, loc="left", fontsize=9)
        axes.set_xlabel(x, fontsize=9)
        axes.set_ylabel(y, fontsize=9)


def log_scale(axes: Any) -> None:
    """Make the y axis logarithmic, with ticks such as 0.5, 1, 2 and 5 instead of powers of ten."""
    from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())


def color_key(color: str, label: str) -> Artist:
    """Return a legend entry for a color."""
    from matplotlib.patches import Patch

    return Patch(color=color, label=label)


def line_key(label: str, style: dict[str, Any]) -> Artist:
    """Return a legend entry for a line style."""
    from matplotlib.lines import Line2D

    return Line2D([], [], label=label, **style)


def add_legend(
    figure: Figure,
    entries: Sequence[Artist] = (),
    *,
    loc: Any = "outside lower center",
    columns: int = 3,
    **options: Any,
) -> None:
    """Add one legend for all panels of a figure: of some entries, or of the labeled artists of all axes.

    Each label occurs once. ``options`` are further ones of ``Figure.legend``.
    """
    handles: dict[Any, Any] = {entry.get_label(): entry for entry in entries}
    if not entries:
        for axes in figure.axes:
            for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
                handles.setdefault(label, handle)
    if handles:
        look: dict[str, Any] = {"fontsize": 8, "title_fontsize": 8, "frameon": False, **options}
        figure.legend(handles.values(), handles.keys(), loc=loc, ncols=columns, **look)


def check_format(path: Path) -> str:
    """Return the ending of a figure's file; raise UmieError if it is not that of a format."""
    suffix = path.suffix.lower()
    if suffix not in FORMATS:
        raise UmieError(f"{path}: unknown figure format {suffix!r}: use {', '.join(FORMATS)}")
    return suffix


def save_figure(figure: Figure, path: str | Path, *, vector: bool = False) -> None:
    """Write a figure as PNG, PDF or SVG, depending on the suffix; with ``vector``, also a PDF and an SVG next to it.

    Raises:
        UmieError: the suffix is not supported, or the file cannot be written.
    """
    path = Path(path)
    suffix = check_format(path)
    prepare_texts(figure)
    for each in [path, *(path.with_suffix(one) for one in VECTOR if vector and one != suffix)]:
        with atomic_write(each, "wb") as file:
            _write(figure, file, each.suffix.lower()[1:])
        figure.set_layout_engine("none")  # it is laid out now; each further time costs as much


def inline_svg(figure: Figure) -> str:
    """Return a figure as an SVG element for a page."""
    prepare_texts(figure)
    buffer = io.BytesIO()
    _write(figure, buffer, "svg")
    text = buffer.getvalue().decode()
    return _SVG_IDS.sub("", text[text.index("<svg") :])


def _write(figure: Figure, file: Any, kind: str) -> None:
    """Write a figure; the same figure gives the same bytes."""
    import matplotlib

    # TrueType, and texts in SVG: they can be edited, and searched in a page
    look: Any = {"pdf.fonttype": 42, "svg.fonttype": "none", "svg.hashsalt": "umie"}
    dates: Any = {"pdf": {"CreationDate": None}, "svg": {"Date": None}}
    with matplotlib.rc_context(look):
        figure.savefig(file, format=kind, dpi=150, metadata=dates.get(kind))
