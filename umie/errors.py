"""Errors that a user of the library can mend: each message says what is wrong, where, and what to do."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager


class UmieError(ValueError):
    """Bad input, named with its place; the command line prints it as one line and exits with 2."""


class UnknownNameError(UmieError):
    """A name that is not among the choices; the message suggests the nearest one."""

    def __init__(self, kind: str, name: object, choices: Iterable[str]) -> None:
        choices = sorted(choices)
        near = difflib.get_close_matches(str(name)[:100], choices, n=1)  # the search is not linear
        hint = f" Did you mean {near[0]!r}?" if near else ""
        super().__init__(f"Unknown {kind} {shown(name)}.{hint} Choices: {', '.join(choices) or 'none'}.")


def check_keys(kind: str, given: Iterable[object], allowed: Iterable[str]) -> None:
    """Raise for the first key that is not allowed.

    Args:
        kind: what a key is called in the message, e.g. ``"grid key"``.
        given: the keys found.
        allowed: the keys that may stand there.

    Raises:
        UnknownNameError: a key is not among the allowed ones.
    """
    allowed = list(allowed)
    for key in given:
        if key not in allowed:
            raise UnknownNameError(kind, key, allowed)


def check_whole(name: str, value: object, minimum: int) -> None:
    """Raise UmieError, naming the field, unless ``value`` is a whole number of at least ``minimum``."""
    if not isinstance(value, int) or isinstance(value, bool) or value < minimum:
        raise UmieError(f"{name} is {value!r}: give {minimum} or more, a whole number")


def check_share(name: str, value: object, *, below_one: bool = False) -> None:
    """Raise UmieError, naming the field, unless ``value`` is a number from 0 to 1 (below 1, if so told)."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not (is_number and 0 <= value <= 1) or (below_one and value == 1):  # type: ignore[operator] # a number by then
        raise UmieError(f"{name} is {value!r}: give 0 <= {name} {'<' if below_one else '<='} 1")


def check_positive(name: str, value: object) -> None:
    """Raise UmieError, naming the field, unless ``value`` is a finite number above 0."""
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 < value < float("inf"):
        hint = " (YAML reads 1e-4 as text: write 1.0e-4)" if isinstance(value, str) else ""
        raise UmieError(f"{name} is {value!r}: give a number above 0{hint}")


def check_flag(name: str, value: object) -> None:
    """Raise UmieError, naming the field, unless ``value`` is True or False."""
    if not isinstance(value, bool):
        raise UmieError(f"{name} is {value!r}: give true or false")


def check_text(name: str, value: object) -> None:
    """Raise UmieError, naming the field, unless ``value`` is a string or None."""
    if not isinstance(value, str | None):
        raise UmieError(f"{name} is {value!r}: give a string")


def check_choice(name: str, value: object, choices: Iterable[str]) -> None:
    """Raise UmieError, naming the field, unless ``value`` is one of the choices."""
    choices = list(choices)
    if value not in choices:
        raise UmieError(f"{name} is {value!r}: give one of {', '.join(choices)}")


@contextmanager
def at(place: str) -> Iterator[None]:
    """Put ``place`` before the message of a UmieError raised inside."""
    try:
        yield
    except UmieError as error:
        raise UmieError(f"{place}: {error}") from error


def shown(value: object) -> str:
    """Return a value as an error message shows it: shortened."""
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # an int too long for a decimal string; a deep nesting
        text = f"<{type(value).__name__}>"
    return text if len(text) <= 80 else text[:77] + "..."


def check_characters(text: str, owner: str) -> None:
    """Raise UmieError for half of a surrogate pair, which an escape can write and UTF-8 cannot."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise UmieError(f"{owner} holds half of a surrogate pair at character {error.start}: mend it") from error
