"""Parse `--option NAME=VALUE`, with the value in YAML."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from umie.errors import UmieError
from umie.yaml_files import parse_yaml


def part_options(given: Iterable[str], flag: str = "--option") -> dict[str, Any]:
    """Return the names and values of ``NAME=VALUE`` strings, with the values in YAML 1.2.

    Args:
        given: the strings.
        flag: the name of the command-line option, for messages.

    Raises:
        UmieError: a string has no ``=`` or no name, a name is repeated, or a value is not valid YAML.
    """
    options: dict[str, Any] = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise UmieError(f"{flag} {text!r}: expected NAME=VALUE, e.g. mode=align")
        if name in options:
            raise UmieError(f"{flag} {name} is repeated: use it once")
        try:
            options[name] = parse_yaml(value)
        except UmieError as error:
            raise UmieError(f"{flag} {text!r}: {value!r} is not valid YAML: put it in quotes") from error
    return options
