"""`umie list`: the registered parts."""

from __future__ import annotations

import json
import sys
from typing import Annotated

import typer
from rich.table import Table

from umie.cli.console import out


def list_parts(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON and nothing else.")] = False,
) -> None:
    """List the registered encoders, region proposers, fusions, decoders and tasks, plugins among them."""
    import umie
    from umie.encoders import regions

    parts = {
        "encoders": umie.encoders.registry.names(),
        "region proposers": regions.registry.names(),
        "fusion": umie.fusion.registry.names(),
        "decoders": umie.decoders.registry.names(),
        "tasks": umie.tasks.registry.names(),
    }
    if as_json:
        sys.stdout.write(json.dumps(parts, indent=2) + "\n")
        return
    from umie.decoders.t5 import PRESETS
    from umie.tasks.styles import STYLES

    table = Table("slot", "names")
    for slot, names in parts.items():
        table.add_row(slot, ", ".join(names))
    table.add_row("presets of t5", ", ".join(PRESETS))
    table.add_row("output styles", ", ".join(STYLES))
    table.add_row("data formats", ", ".join(["synthetic", *umie.data.registry.names()]))
    out.print(table)
