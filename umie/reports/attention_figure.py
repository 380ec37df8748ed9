"""The attention of each item as a heat map over the regions of the image."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from umie.errors import UmieError
from umie.images import open_image
from umie.records import Record
from umie.records.places import place_name
from umie.reports.style import new_figure, panels, save_figure

if TYPE_CHECKING:
    from umie.extraction import Attention

MAX_ITEMS = 12
_COLUMNS = 3
_HEAT = "#d55e00"


def draw_attention(attention: Sequence[Attention], record: Record, path: str | Path) -> None:
    """Draw for each item, at most twelve, how much attention its words pay to each region of the first image.

    The opacity of a region is its attention, relative to the highest of all items, so that panels can be compared.

    Args:
        attention: that of the items, of ``Extractor.attention``.
        record: their record.
        path: the file; its ending is the format: PNG, PDF or SVG.

    Raises:
        UmieError: there is no attention to regions of the first image, the image cannot be read, or the file cannot be
            written.
    """
    from matplotlib.patches import Rectangle

    regions = {place_name("image", index): region for index, region in enumerate(record.regions) if region.image == 0}
    shown = [one for one in attention if one.weights.keys() & regions.keys()][:MAX_ITEMS]
    if not shown:
        raise UmieError("there is no attention to a region of an image to draw: pass regions, or use the table")
    image = open_image(record.resolved("image")).convert("RGB")
    image.thumbnail((900, 900))
    width, height = image.size
    highest = max(one.weights[name] for one in shown for name in one.weights.keys() & regions.keys())
    columns = min(_COLUMNS, len(shown))
    rows = -(-len(shown) // columns)
    side = 9.5 / _COLUMNS
    figure = new_figure(max(side * columns, side), rows * (min(1.6, height / width) * side + 0.45))
    for axes, one in zip(panels(figure, len(shown), columns), shown, strict=True):
        axes.set_axis_off()
        axes.imshow(image.convert("L"), cmap="gray", vmin=-120, vmax=255)  # light, so that the heat is seen
        for name in sorted(one.weights.keys() & regions.keys(), key=one.weights.__getitem__):
            x1, y1, x2, y2 = regions[name].box
            place, size = (x1 * width, y1 * height), ((x2 - x1) * width, (y2 - y1) * height)
            opacity = 0.75 * one.weights[name] / highest if highest else 0.0
            axes.add_patch(Rectangle(place, *size, color=_HEAT, alpha=opacity, linewidth=0))
            axes.add_patch(Rectangle(place, *size, fill=False, edgecolor=_HEAT, linewidth=0.8))
            box = {"facecolor": "white", "edgecolor": "none", "pad": 0.8, "alpha": 0.8}
            axes.text(*place, f"{name} {one.weights[name]:.2f}", fontsize=7, va="top", bbox=box)
        whole = one.weights.get("image")
        said = record.surface(one.span)
        label = f"{said[:28]}{'...' if len(said) > 28 else ''} ({one.task})"
        axes.set_title(label + ("" if whole is None else f"\nwhole image {whole:.2f}"), loc="left", fontsize=8)
    save_figure(figure, path)
