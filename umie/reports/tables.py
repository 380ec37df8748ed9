"""Tables of reports: Markdown, LaTeX and CSV from a header and rows."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any

from tabulate import tabulate


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Return a Markdown table with aligned columns, which is also readable as plain text.

    Cells may contain any text: line breaks become spaces, pipes and backslashes are escaped.
    """
    cells = [[_markdown(cell) for cell in row] for row in rows]
    return tabulate(cells, list(map(_markdown, header)), tablefmt="pipe", disable_numparse=True, stralign="left")


def latex_table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Return a LaTeX table in the style of the booktabs package."""
    return tabulate(
        [list(map(str, row)) for row in rows],
        list(header),
        tablefmt="latex_booktabs",
        disable_numparse=True,
        colalign=["left"] + ["right"] * (len(header) - 1),
    )


def csv_table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Return a table as CSV."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerows([header, *rows])
    return buffer.getvalue()


def shown_interval(scores: Mapping[str, Any]) -> str:
    """Return an F1 with its 95% interval, e.g. ``0.612 [0.587, 0.636]``."""
    low, high = scores["interval"]
    return f"{scores['f1']:.3f} [{low:.3f}, {high:.3f}]"


def _markdown(cell: object) -> str:
    return " ".join(str(cell).replace("\\", "\\\\").replace("|", "\\|").split())
