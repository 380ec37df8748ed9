"""`umie list`: list the registered parts, or the options of one."""

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
from umie.cli.help import reflowed
from umie.cli.options import Plugins
from umie.errors import UnknownNameError
from umie.registry import Registry

_HELP = """List the registered parts, including those of plugins, or the options of one part.

For example:

    umie list
    umie list gated
    umie list --plugin my_fusion.py
"""


def list_parts(
    name: Annotated[str | None, typer.Argument(help="The part whose options to list, e.g. clip or gated.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    plugins: Plugins = None,
) -> None:
    """List parts."""
    from umie import registries
    from umie.registry import load_plugins

    load_plugins(plugins or ())
    parts = {kind: {part: registry.summary(part) for part in registry} for kind, registry in registries.ALL.items()}
    if name is not None:
        found = [registry for kind, registry in registries.ALL.items() if name in parts[kind]]
        if not found:
            raise UnknownNameError("part", name, {part for names in parts.values() for part in names})
        for registry in found:
            _show_options(registry, name, as_json)
        return
    if as_json:
        sys.stdout.write(json.dumps(parts, indent=2) + "\n")
        return
    table = Table("kind", "name", "description")
    for kind, names in parts.items():
        for number, (part, summary) in enumerate(names.items()):
            table.add_row("" if number else kind, part, escape(summary), end_section=number == len(names) - 1)
    out.print(table)


list_parts.__doc__ = reflowed(_HELP)


def _show_options(registry: Registry[Any], name: str, as_json: bool) -> None:
    """Print the description of a part, and its options with their defaults."""
    part: Any = registry.get(name)
    options = _options(part)
    if as_json:
        sys.stdout.write(json.dumps({option: meaning for option, _, meaning in options}, indent=2) + "\n")
        return
    out.print(f"{registry.kind} {name}: {_first_sentence(part)}", highlight=False, markup=False)
    presets = getattr(part, "PRESETS", {})
    if presets:
        out.print(f"presets: {', '.join(presets)}", highlight=False, markup=False)
    table = Table("option", "default", "meaning")
    for row in options:
        table.add_row(*map(escape, row))
    out.print(table)


def _options(part: Any) -> list[tuple[str, str, str]]:
    """Return the name, default and meaning of each option: a field of the part's Config, or an argument."""
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
    """Return the description of an option from the docstring of a function, or of a class or one of its bases."""
    for owner in inspect.getmro(described) if inspect.isclass(described) else (described,):
        text = inspect.cleandoc(owner.__doc__ or "")
        found = re.search(rf"^    {option}: (.*(?:\n     .*)*)", text, re.MULTILINE)
        if found:
            return " ".join(found[1].split())
    return ""


def _first_sentence(part: Any) -> str:
    return inspect.cleandoc(part.__doc__ or "").partition("\n\n")[0].replace("\n", " ")
