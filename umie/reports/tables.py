"""Tables of reports: Markdown, LaTeX and CSV from a header and rows."""

from __future__ import annotations

import csv
import io
import itertools
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from tabulate import tabulate

from umie.errors import printable

_FORMULA = ("=", "+", "-", "@", "＝", "＋", "－", "＠")  # also as they are typed in East Asian texts
# what pdfLaTeX has without further packages, in the encodings OT1 and T1
_LATEX = {*range(0x20, 0x7F), *range(0xA1, 0x180), *map(ord, "–—‘’“”…→•€†‡")} - set(
    map(ord, "\xad«»ÐÞðþĄąĐđĘęĦħĮįĸĿŀŉŊŋŦŧŲųſ")
)
_GREEK = (
    "alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu nu xi  pi rho  sigma tau upsilon phi chi psi "
    "omega"
)
_LATEX_ESCAPES = {
    **{one: f"\\{one}" for one in "&%$#_{}"},
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "\\": r"\textbackslash{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "−": r"\ensuremath{-}",
    "≤": r"\ensuremath{\leq}",
    "≥": r"\ensuremath{\geq}",
    **{chr(place): rf"\ensuremath{{\{name}}}" for place, name in enumerate(_GREEK.split(" "), ord("α")) if name},
}
_SPACE = 3  # characters between columns
_SHORT = 24  # characters of a cell that is not wrapped
_PIPE = re.compile(r"(?<!\\)\|")
_HTML = re.compile(r"<(?=[A-Za-z/!?])|&(?=#?\w+;)")  # the begin of a tag, of a comment, or of a character's name


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Return a Markdown table with aligned columns, which is also readable as plain text.

    Cells may contain any text: line breaks become spaces, and pipes, backslashes, HTML, links and control characters
    are escaped.
    """
    cells = [[markdown_text(cell) for cell in row] for row in rows]
    return tabulate(cells, list(map(markdown_text, header)), tablefmt="pipe", disable_numparse=True, stralign="left")


def narrow_tables(markdown: str, width: int) -> str:
    """Return a Markdown page whose tables fit into a width in characters.

    A table that is too wide is split by columns; each part repeats the first columns, which say what a row is about.
    Long texts do not count with their full width, because they can be wrapped.
    """
    lines: list[str] = []
    for is_table, group in itertools.groupby(markdown.split("\n"), key=lambda line: line.startswith("|")):
        own = list(group)
        rows = [[cell.strip() for cell in _PIPE.split(line)[1:-1]] for line in own] if is_table else []
        if len(rows) > 2 and len(set(map(len, rows))) == 1:
            lines += _narrowed([rows[0], *rows[2:]], width) or own
        else:
            lines += own
    return "\n".join(lines)


def _narrowed(rows: Sequence[Sequence[str]], width: int) -> list[str]:
    """Return the lines of a table of escaped cells, split by columns; empty if it fits."""
    columns = list(zip(*rows, strict=True))
    needed = [_SPACE + max(map(_unbreakable, column)) for column in columns]
    if sum(needed) <= width:
        return []
    keys = next((end for end in range(1, len(columns)) if len(set(zip(*columns[:end], strict=True))) == len(rows)), 1)
    keys = keys if sum(needed[:keys]) <= 3 * width / 4 else 1
    parts: list[list[int]] = []
    for number in range(keys, len(columns)):
        if not parts or sum(needed[one] for one in (*range(keys), *parts[-1], number)) > width:
            parts.append([])
        parts[-1].append(number)
    lines: list[str] = []
    for part in parts:
        header, *body = ([row[number] for number in (*range(keys), *part)] for row in rows)
        lines += ["", *tabulate(body, header, tablefmt="pipe", disable_numparse=True).split("\n")]
    return lines[1:]


def _unbreakable(cell: str) -> int:
    """Return the width that a cell needs: a short one stays in one line, a long one is wrapped between words."""
    return len(cell) if len(cell) <= _SHORT else max(map(len, cell.split()))


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
    shown = "".join(
        one if ord(one) in _LATEX or one in _LATEX_ESCAPES else one.encode("unicode_escape").decode() for one in text
    )
    escaped = "".join(_LATEX_ESCAPES.get(one, one) for one in shown)
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
