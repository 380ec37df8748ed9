"""`umie list`: the registered parts, and the options of one."""

from __future__ import annotations

import dataclasses
import inspect
import json
import re
import sys
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from umie.cli.console import out
from umie.errors import UnknownNameError
from umie.registry import Registry


def list_parts(
    name: Annotated[str | None, typer.Argument(help="A part, whose options to show: clip, gated, ...")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON and nothing else.")] = False,
) -> None:
    """List the registered encoders, region proposers, fusions, decoders and tasks, plugins among them.

    Example:
        umie list
        umie list resnet101_roi
    """
    import umie

    registries: dict[str, Registry[Any]] = {
        "encoders": umie.encoders.registry,
        "region proposers": umie.encoders.regions.registry,
        "fusion": umie.fusion.registry,
        "decoders": umie.decoders.registry,
        "tasks": umie.tasks.registry,
    }
    parts = {slot: registry.names() for slot, registry in registries.items()}
    if name is not None:
        found = [registry for slot, registry in registries.items() if name in parts[slot]]
        if not found:
            raise UnknownNameError("part", name, [part for names in parts.values() for part in names])
        for registry in found:
            _show_options(registry, name, as_json)
        return
    if as_json:
        sys.stdout.write(json.dumps(parts, indent=2) + "\n")
        return
    from umie.decoders import seq2seq, t5
    from umie.fusion import kernels
    from umie.tasks.styles import STYLES

    table = Table("slot", "names")
    for slot, names in parts.items():
        table.add_row(slot, ", ".join(names))
    table.add_row("presets of t5", ", ".join(t5.PRESETS))
    table.add_row("presets of seq2seq", ", ".join(seq2seq.PRESETS))
    table.add_row("attention backends", ", ".join(["auto", *kernels.registry.names()]))
    table.add_row("output styles", ", ".join(STYLES))
    table.add_row("data formats", ", ".join(["synthetic", *umie.data.registry.names()]))
    out.print(table)


def _show_options(registry: Registry[Any], name: str, as_json: bool) -> None:
    """Print what a part is, and its options with their defaults."""
    part: Any = registry.get(name)
    options = _options(part)
    if as_json:
        sys.stdout.write(json.dumps({option: meaning for option, _, meaning in options}, indent=2) + "\n")
        return
    out.print(f"{registry.kind} {name}: {_summary(part)}", highlight=False, markup=False)
    table = Table("option", "default", "meaning")
    for row in options:
        table.add_row(*map(escape, row))
    out.print(table)


def _options(part: Any) -> list[tuple[str, str, str]]:
    """Return name, default and meaning of each option: the fields of its Config, or its arguments."""
    config = getattr(part, "Config", None)
    if config is None:
        return [
            (option, _default(parameter.default), _meaning(part, option))
            for option, parameter in inspect.signature(part).parameters.items()
        ]
    return [
        (
            field.name,
            _default(field.default if field.default_factory is dataclasses.MISSING else field.default_factory()),
            _meaning(config, field.name),
        )
        for field in dataclasses.fields(config)
    ]


def _default(value: object) -> str:
    return "" if value is dataclasses.MISSING or value is inspect.Parameter.empty else repr(value)


def _meaning(described: Any, option: str) -> str:
    """Return what the docstring of a class, or of one that it extends, says of an option."""
    for owner in inspect.getmro(described) if inspect.isclass(described) else (described,):
        text = inspect.cleandoc(owner.__doc__ or "")
        found = re.search(rf"^    {option}: (.*(?:\n     .*)*)", text, re.MULTILINE)
        if found:
            return " ".join(found[1].split())
    return ""


def _summary(part: Any) -> str:
    return inspect.cleandoc(part.__doc__ or "").partition("\n\n")[0].replace("\n", " ")
