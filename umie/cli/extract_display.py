"""Tables of the items extracted from one text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich import box
from rich.markup import escape
from rich.table import Table

from umie.cli.console import out
from umie.cli.options import show

if TYPE_CHECKING:
    from umie.extraction import Extraction
    from umie.records import Argument, Span


def show_extraction(found: Extraction) -> None:
    """Print a table for each kind of item, and the gate of each task."""
    if found.entities:
        rows = [(item.type, item.text, _offsets(item.span)) for item in found.entities]
        _show("Entities", ("type", "text", "characters"), rows)
    if found.relations:
        pairs = [
            (
                _surface(found, item.head),
                item.type,
                _surface(found, item.tail),
                f"{_offsets(item.head)}, {_offsets(item.tail)}",
            )
            for item in found.relations
        ]
        _show("Relations", ("head", "type", "tail", "characters"), pairs)
    if found.events:
        _show("Events", ("event", "role", "text or region", "characters", "pixels"), _events(found))
    if not (found.entities or found.relations or found.events):
        out.print("Nothing was found.")
    gates = [f"{task} {gate:+.3f}" for task, gate in found.gate.items() if gate is not None]
    if gates:
        out.print(f"gate: {', '.join(gates)}", highlight=False)


def _events(found: Extraction) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = []
    for event in found.events:
        trigger = ("(in the image)", "")
        if event.trigger is not None:
            trigger = _surface(found, event.trigger), _offsets(event.trigger)
        rows.append((event.type, "", *trigger, ""))
        rows += [("", argument.role, *_filler(found, argument)) for argument in event.arguments]
    return rows


def _filler(found: Extraction, argument: Argument) -> tuple[str, str, str]:
    region = found.region(argument)
    if region is None:
        span = argument.span or (0, 0)
        return _surface(found, span), _offsets(span), ""
    name = f"region {argument.region}" + (f" ({region.label})" if region.label else "")
    pixels = found.pixel_box(argument)
    relative = ", ".join(f"{edge:.2f}" for edge in region.box)
    return name, f"box {relative}", "" if pixels is None else ", ".join(map(str, pixels))


def _surface(found: Extraction, span: Span) -> str:
    return found.record.surface(span)


def _offsets(*spans: Span) -> str:
    return ", ".join(f"{start}-{end}" for start, end in spans)


def _show(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    if not any(row[-1] for row in rows):  # the image sizes are unknown
        columns, rows = columns[:-1], [row[:-1] for row in rows]
    table = Table(*columns, title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for row in rows:
        table.add_row(*map(escape, row))
    show(table)
