"""`umie list`: list the registered parts, or the options of one."""

from __future__ import annotations

import dataclasses
import inspect
import re
import sys
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.table import Column, Table

from umie.cli.console import out
from umie.cli.options import Plugins
from umie.errors import UnknownNameError
from umie.files import json_text


def list_parts(
    name: Annotated[str | None, typer.Argument(help="The part whose options to list, e.g. clip or gated.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    plugins: Plugins = None,
) -> None:
    """List the registered parts, including those of plugins, or the options of one part.

    Among the data formats are the embedded data sets, which are drawn: synthetic and synthetic_media.

    For example:

        umie list
        umie list gated
        umie list --plugin my_fusion.py
    """
    from umie import registries
    from umie.data import embedded
    from umie.registry import load_plugins

    load_plugins(plugins or ())
    parts = {kind: {part: registry.summary(part) for part in registry} for kind, registry in registries.ALL.items()}
    parts["data formats"] |= {part: embedded.summary(part) for part in embedded.names()}
    if name is not None:
        found: list[tuple[str, Any]] = [(each.kind, each.get(name)) for each in registries.ALL.values() if name in each]
        found += [("embedded data set", embedded.EMBEDDED[name].config)] if name in embedded.EMBEDDED else []
        if not found:
            raise UnknownNameError("part", name, {part for names in parts.values() for part in names})
        for kind, one in found:
            _show_options(kind, name, one, as_json)
        return
    if as_json:
        sys.stdout.write(json_text(parts, indent=2, ensure_ascii=True) + "\n")
        return
    table = Table("kind", "name", Column("description", overflow="fold"))
    for kind, names in parts.items():
        for number, (part, summary) in enumerate(names.items()):
            table.add_row("" if number else kind, part, escape(_plain(summary)), end_section=number == len(names) - 1)
    out.print(table)


def _show_options(kind: str, name: str, part: Any, as_json: bool) -> None:
    """Print the description of a part, and its options: the fields of its Config, or its arguments."""
    options = options_of(part)
    if as_json:
        meanings = {option: meaning for option, _, meaning in options}
        sys.stdout.write(json_text(meanings, indent=2, ensure_ascii=True) + "\n")
        return
    out.print(f"{kind} {name}: {description_of(part)}", highlight=False, markup=False)
    if presets := getattr(part, "PRESETS", {}):
        out.print(f"presets: {', '.join(presets)}", highlight=False, markup=False)
    table = Table("option", "default", "meaning")
    for option in options:
        table.add_row(*map(escape, option))
    out.print(table)


def description_of(part: Any) -> str:
    """Return the first paragraph of the docstring of a part, on one line."""
    return _plain(inspect.cleandoc(part.__doc__ or "").partition("\n\n")[0])


def options_of(part: Any) -> list[tuple[str, str, str]]:
    """Return name, default (empty if it is required) and meaning of the fields of a part's Config, or its arguments."""
    described = getattr(part, "Config", part)
    if dataclasses.is_dataclass(described):
        defaults = {
            field.name: field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
            for field in dataclasses.fields(described)
        }
    else:
        defaults = {option: found.default for option, found in inspect.signature(part).parameters.items()}
    required = (dataclasses.MISSING, inspect.Parameter.empty)
    return [
        (option, "" if default in required else repr(default), _meaning(described, option))
        for option, default in defaults.items()
    ]


def _meaning(described: Any, option: str) -> str:
    """Return the description of an option from the docstring of a function, or of a class or one of its bases."""
    for owner in inspect.getmro(described) if inspect.isclass(described) else (described,):
        text = inspect.cleandoc(owner.__doc__ or "")
        found = re.search(rf"^    {option}: (.*(?:\n     .*)*)", text, re.MULTILINE)
        if found:
            return _plain(found[1])
    return ""


def _plain(text: str) -> str:
    """Return a part of a docstring on one line, without its marks for code."""
    return " ".join(text.replace("``", "").split())
