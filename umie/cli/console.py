"""Output of the commands: results go to standard output, progress and errors to standard error."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterable
from typing import Any

from rich.console import Console, ConsoleOptions
from rich.markdown import Markdown
from rich.measure import Measurement
from rich.segment import Segment
from rich.table import Table

from umie.errors import without_controls


class SafeConsole(Console):
    """A console that never prints the control characters of data, which could change a terminal."""

    def render(self, renderable: Any, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Yield the segments of a renderable, escaped; see ``without_controls``."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else segment._replace(text=without_controls(segment.text))


out = SafeConsole()
err = SafeConsole(stderr=True)


def print_line(line: str, style: str | None = None) -> None:
    """Print a line to standard output without markup and wrapping."""
    out.print(line, style=style, markup=False, highlight=False, emoji=False, soft_wrap=True)


def print_note(line: str, style: str | None = None) -> None:
    """Print a line to standard error without markup and wrapping."""
    err.print(line, style=style, markup=False, highlight=False, emoji=False, soft_wrap=True)


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
    """Print a Markdown page: with its formatting on a terminal, else as it is."""
    if out.is_terminal:
        out.print(Markdown(markdown))
    else:
        sys.stdout.write(markdown)
