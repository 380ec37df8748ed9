"""Tables of reports: Markdown, LaTeX and CSV from a header and rows."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from tabulate import tabulate

from umie.errors import printable

_FORMULA = ("=", "+", "-", "@", "＝", "＋", "－", "＠")  # also as they are typed in East Asian texts
_LATEX = {*range(0x20, 0x7F), *range(0xA1, 0x180), *map(ord, "–—‘’“”…±×−")} - {0xAD}  # in pdfLaTeX without packages
_LATEX_ESCAPES = {
    **{one: f"\\{one}" for one in "&%$#_{}"},
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "\\": r"\textbackslash{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
}
_HTML = re.compile(r"<(?=[A-Za-z/!?])|&(?=#?\w+;)")  # the begin of a tag, of a comment, or of a character's name


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Return a Markdown table with aligned columns, which is also readable as plain text.

    Cells may contain any text: line breaks become spaces, and pipes, backslashes, HTML, links and control characters
    are escaped.
    """
    cells = [[markdown_text(cell) for cell in row] for row in rows]
    return tabulate(cells, list(map(markdown_text, header)), tablefmt="pipe", disable_numparse=True, stralign="left")


def markdown_list(items: Iterable[object]) -> str:
    """Return a Markdown list of texts from data; see ``markdown_text``."""
    return "\n".join(f"- {markdown_text(item)}" for item in items)


def latex_table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Return a LaTeX table in the style of the booktabs package, which pdfLaTeX compiles, whatever the texts are.

    Characters that LaTeX obeys are escaped; those that its fonts lack are shown as their code points.
    """
    head, *body = (" & ".join(map(_latex, row)) + r" \\" for row in (header, *rows))
    begin = rf"\begin{{tabular}}{{l{'r' * (len(header) - 1)}}} % needs \usepackage{{booktabs}}"
    return "\n".join([begin, r"\toprule", head, r"\midrule", *body, r"\bottomrule", r"\end{tabular}"])


def csv_table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Return a table as CSV, in which no cell is a formula for a spreadsheet: those that begin like one are quoted."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerows([[_csv(cell) for cell in row] for row in (header, *rows)])
    return buffer.getvalue()


def shown_interval(scores: Mapping[str, Any]) -> str:
    """Return an F1 with its 95% interval, e.g. ``0.612 [0.587, 0.636]``."""
    low, high = scores["interval"]
    return f"{scores['f1']:.3f} [{low:.3f}, {high:.3f}]"


def markdown_text(cell: object) -> str:
    """Return a text from data in one line of Markdown, in which pipes, backslashes, HTML and links are escaped."""
    text = printable(" ".join(str(cell).split())).replace("\\", "\\\\").replace("|", "\\|").replace("](", "]\\(")
    return _HTML.sub(lambda found: "&lt;" if found[0] == "<" else "&amp;", text)


def _latex(cell: object) -> str:
    text = printable(" ".join(str(cell).split()))
    shown = (one if ord(one) in _LATEX else one.encode("unicode_escape").decode() for one in text)
    escaped = "".join(_LATEX_ESCAPES.get(one, one) for part in shown for one in part)
    return f"{{}}{escaped}" if escaped.startswith(("[", "*")) else escaped  # after the end of a row, they are options


def _csv(cell: object) -> object:
    text = printable(str(cell))
    if (not text.lstrip().startswith(_FORMULA) and not text.startswith(("\t", "\r", "\n"))) or text == "-":
        return text
    try:
        float(text)
    except ValueError:
        return f"'{text}"
    return text


def grounded_note(tasks: Iterable[str]) -> str:
    """Return what the score of grounded tasks means; ``tasks`` are their names in tables."""
    return f"{', '.join(tasks)}: an item is correct only if the places that show it are, too (`grounded`)."
