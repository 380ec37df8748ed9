"""YAML 1.2 without surprises: ``1e-3`` is a number, ``yes`` is a string, and repeated keys are errors."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from umie.errors import UmieError


class _Loader(yaml.SafeLoader):
    """A loader for the core types of YAML 1.2: ``010`` is ten, ``yes`` and ``12:30:45`` are strings."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012 # as in the base class

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        """Return a mapping; raise UmieError for a repeated key."""
        lines: dict[Any, int] = {}
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            line = key_node.start_mark.line + 1
            if isinstance(key, str | int | float | bool) and lines.setdefault(key, line) != line:
                raise UmieError(f"line {line}: the key {key!r} is already set on line {lines[key]}: remove one")
        found: dict[Any, Any] = super().construct_mapping(node, deep)
        return found


for _tag, _pattern, _first in (
    ("bool", r"^(?:true|True|TRUE|false|False|FALSE)$", "tTfF"),
    ("null", r"^(?:~|null|Null|NULL|)$", ["~", "n", "N", ""]),
    ("int", r"^[-+]?[0-9]+$", "-+0123456789"),
    ("float", r"^(?:[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN))$",
     "-+0123456789."),
    ("merge", r"^<<$", "<"),
):  # fmt: skip
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(_pattern), list(_first))


_Loader.add_constructor("tag:yaml.org,2002:int", lambda loader, node: int(str(node.value)))


def parse_yaml(text: str) -> Any:
    """Parse YAML text; raise UmieError if it is not valid YAML, or a key is repeated."""
    try:
        return yaml.load(text, _Loader)
    except UmieError:
        raise
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise UmieError(f"not valid YAML: {' '.join(str(error).split())}") from error


def read_yaml(path: Path, what: str) -> Any:
    """Read a YAML file.

    Args:
        path: the file.
        what: a description of the file for messages, e.g. ``"the config file"``.

    Raises:
        UmieError: the file cannot be read or is not valid YAML.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise UmieError(f"{path}: cannot read {what}: {error.strerror}") from error
    except ValueError as error:
        raise UmieError(f"{path}: not valid YAML: {error}") from error
    try:
        return parse_yaml(text)
    except UmieError as error:
        raise UmieError(f"{path}: {error}") from error
