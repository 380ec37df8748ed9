"""Output of the commands: results go to standard output, progress and errors to standard error."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterable
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.markdown import Markdown
from rich.measure import Measurement
from rich.segment import Segment
from rich.table import Table

from umie.errors import printable
from umie.files import json_text


class SafeConsole(Console):
    """A console on which no text from data, such as a label or a file name, can control the terminal."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Yield the segments of a renderable, whose texts are printable; rich's own control codes are kept."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else Segment(printable(segment.text), segment.style)


out = SafeConsole()
err = SafeConsole(stderr=True)


def tolerate_encodings() -> None:
    """Make output escape the characters that its encoding lacks, e.g. with ``LC_ALL=C``, instead of failing."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def print_line(line: str, style: str | None = None) -> None:
    """Print a line to standard output without markup and wrapping."""
    out.print(printable(line), style=style, markup=False, highlight=False, emoji=False, soft_wrap=True)


def print_note(line: str, style: str | None = None) -> None:
    """Print a line to standard error without markup and wrapping."""
    err.print(printable(line), style=style, markup=False, highlight=False, emoji=False, soft_wrap=True)


def print_json(value: Any, indent: int | None = None) -> None:
    """Print a value as JSON, with escapes for what the output cannot or must not contain."""
    text = json_text(value, indent=indent)
    try:
        is_safe = text == printable(text) and bool(text.encode(out.encoding))
    except UnicodeEncodeError:
        is_safe = False
    sys.stdout.write((text if is_safe else json_text(value, indent=indent, ensure_ascii=True)) + "\n")


def print_notes(notes: Counter[str], doubtful: Iterable[str] = (), *, with_numbers: bool = True) -> None:
    """Print to standard error what readers changed or assumed, and warnings about relation labels."""
    from umie.records.no_relation import doubt
    from umie.records.notes import note_lines

    for line in note_lines(notes, with_numbers=with_numbers):
        print_note(f"note: {line}")
    for label in doubtful:
        print_note(f"warning: {doubt(label)}", "yellow")


def number_table(*columns: str, no_wrap: bool = False, **look: Any) -> Table:
    """Return a table whose columns after the first are aligned to the right; ``look`` are options of ``Table``."""
    table = Table(*columns, **look)
    for column in table.columns[1:]:
        column.justify, column.no_wrap = "right", no_wrap
    return table


def show(table: Table) -> None:
    """Print a table at the width of the terminal, or, without a terminal, at the width that the table needs."""
    if out.is_terminal:
        out.print(table)
        return
    needed = Measurement.get(out, out.options.update(max_width=10_000), table).maximum
    SafeConsole(file=out.file, width=needed).print(table)


def show_page(markdown: str) -> None:
    """Print a Markdown page: on a terminal with its formatting and tables that fit its width, else as it is."""
    from umie.reports.tables import narrow_tables

    if out.is_terminal:
        out.print(Markdown(narrow_tables(printable(markdown), out.width)))
    else:
        sys.stdout.write(printable(markdown))
