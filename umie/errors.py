"""Errors that a user can fix. Each message says what is wrong, where, and what to do."""

from __future__ import annotations

import difflib
import importlib
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

# two letters or more, because C: is a drive; a Path joins the slashes of a URL to one
_URL = re.compile(r"(?:[A-Za-z][A-Za-z0-9+.-]+:/|data:)")


# control characters except line breaks and tabs, and those that change the direction or the line of what follows
_UNPRINTABLE = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff\U000e0000-\U000e007f]"
)

_MAX_CHOICES = 200  # listed in a message


class UmieError(ValueError):
    """Invalid input. The command line prints the message and exits with code 2; see ``printable``."""

    def __str__(self) -> str:
        return printable(super().__str__())

    def __reduce__(self) -> tuple[Any, ...]:
        return UmieError, (str(self),)  # subclasses have other arguments, and it must reach another process


class UnknownNameError(UmieError):
    """An unknown name. The message suggests the closest choice."""

    def __init__(self, kind: str, name: object, choices: Iterable[str]) -> None:
        choices = sorted(choices)
        near = difflib.get_close_matches(str(name)[:100], choices, n=1)  # matching a long name is slow
        hint = f" Did you mean {near[0]!r}?" if near else ""
        listed = ", ".join(choices[:_MAX_CHOICES]) or "none"
        more = f", ... ({len(choices):,} in all)" if len(choices) > _MAX_CHOICES else ""
        super().__init__(f"Unknown {kind} {shown(name)}.{hint} Choices: {listed}{more}.")


def check_keys(kind: str, given: Iterable[object], allowed: Iterable[str]) -> None:
    """Raise UnknownNameError for the first key that is not allowed; ``kind`` is its term, e.g. ``"grid key"``."""
    allowed = list(allowed)
    for key in given:
        if key not in allowed:
            raise UnknownNameError(kind, key, allowed)


def check_whole(name: str, value: object, minimum: int) -> None:
    """Raise UmieError unless ``value`` is a whole number of at least ``minimum``."""
    if not isinstance(value, int) or isinstance(value, bool) or value < minimum:
        raise UmieError(f"{name} is {value!r}: use a whole number of at least {minimum}")


def check_share(name: str, value: object, *, below_one: bool = False) -> None:
    """Raise UmieError unless ``value`` is a number from 0 to 1, or less than 1 with ``below_one``."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not (is_number and 0 <= value <= 1) or (below_one and value == 1):  # type: ignore[operator] # a number by then
        raise UmieError(f"{name} is {value!r}: use a number >= 0 and {'<' if below_one else '<='} 1")


def check_positive(name: str, value: object) -> None:
    """Raise UmieError unless ``value`` is a finite number greater than 0."""
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 < value < float("inf"):
        raise UmieError(f"{name} is {value!r}: use a number greater than 0")


def check_flag(name: str, value: object) -> None:
    """Raise UmieError unless ``value`` is True or False."""
    if not isinstance(value, bool):
        raise UmieError(f"{name} is {value!r}: use true or false")


def check_text(name: str, value: object) -> None:
    """Raise UmieError unless ``value`` is a string or None."""
    if not isinstance(value, str | None):
        raise UmieError(f"{name} is {value!r}: use a string")


def check_choice(name: str, value: object, choices: Iterable[str]) -> None:
    """Raise UmieError unless ``value`` is one of the choices."""
    choices = list(choices)
    if value not in choices:
        raise UmieError(f"{name} is {value!r}: use one of {', '.join(choices)}")


def check_kind(name: str, value: object, kinds: Any, use: str) -> None:
    """Raise UmieError unless ``value`` is an instance of one of the ``kinds``; ``use`` says what to pass instead."""
    if not isinstance(value, kinds):
        raise UmieError(f"{name} is {shown(value)}: {use}")


def check_local(name: str, path: object) -> None:
    """Raise UmieError if a path is a URL, such as ``https://...`` or ``s3://...``: nothing is downloaded."""
    if isinstance(path, str | os.PathLike) and _URL.match(os.fsdecode(path)):
        raise UmieError(f"{name} is {shown(os.fsdecode(path))}, a URL: download it, and pass the path of the file")


def import_extra(module: str, extra: str, what: str) -> Any:
    """Import a library that is not installed with umie by default, and return it.

    Args:
        module: the module, e.g. ``matplotlib.figure``.
        extra: the extra of umie that installs it, or another argument of ``pip install``.
        what: what needs it, for the message.

    Raises:
        UmieError: it is not installed, or its installation is damaged.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        package = module.partition(".")[0]
        is_missing = isinstance(error, ModuleNotFoundError) and (error.name or "").partition(".")[0] == package
        why = "" if is_missing else f", which cannot be imported ({one_line(error)})"
        raise UmieError(f"{what} needs {package}{why}: pip install 'umie[{extra}]'") from error


@contextmanager
def at(place: str) -> Iterator[None]:
    """Prefix the message of a UmieError raised inside the block with ``place``."""
    try:
        yield
    except UmieError as error:
        error.args = (f"{place}: {error}",)
        raise


def printable(text: str) -> str:
    """Return a text from data with escapes, such as those of Python, in place of what a terminal would obey."""
    return _UNPRINTABLE.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def one_line(error: object) -> str:
    """Return a message of a library, which may have several lines, in one."""
    return " ".join(str(error).split())


def shown(value: object) -> str:
    """Return the shortened ``repr`` of a value, for an error message."""
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # a huge int; deep nesting
        text = f"<{type(value).__name__}>"
    return text if len(text) <= 80 else text[:77] + "..."


def check_characters(text: str, owner: str) -> None:
    """Raise UmieError for an unpaired surrogate, which a JSON escape can express but UTF-8 cannot."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise UmieError(f"{owner} contains an unpaired surrogate at character {error.start}: remove it") from error
