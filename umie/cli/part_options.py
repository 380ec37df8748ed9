"""Options of a part on the command line: `--option NAME=VALUE`, the value as YAML writes it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from umie.errors import UmieError


def part_options(given: Iterable[str]) -> dict[str, Any]:
    """Return names and values of ``NAME=VALUE`` strings; ``8`` is a number, ``true`` a flag, ``null`` nothing.

    Raises:
        UmieError: no ``=``, no name, a name given twice, or a value that is not YAML.
    """
    import yaml

    options: dict[str, Any] = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise UmieError(f"--option {text!r}: give NAME=VALUE, e.g. mode=align")
        if name in options:
            raise UmieError(f"--option {name} is given twice: give it once")
        try:
            options[name] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise UmieError(f"--option {text!r}: {value!r} is no YAML value; put it into quotes") from error
    return options
