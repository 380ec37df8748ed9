"""Options given as `--option NAME=VALUE`, with the value in YAML."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from umie.errors import UmieError


def part_options(given: Iterable[str], flag: str = "--option") -> dict[str, Any]:
    """Return the names and values of ``NAME=VALUE`` strings: ``8`` is a number, ``true`` a bool, ``null`` is None.

    Args:
        given: the strings.
        flag: the name of the command-line option, for messages.

    Raises:
        UmieError: a string has no ``=`` or no name, a name is repeated, or a value is not YAML.
    """
    import yaml

    options: dict[str, Any] = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise UmieError(f"{flag} {text!r}: expected NAME=VALUE, e.g. mode=align")
        if name in options:
            raise UmieError(f"{flag} {name} is given twice")
        try:
            options[name] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise UmieError(f"{flag} {text!r}: {value!r} is not a YAML value; put it in quotes") from error
    return options
