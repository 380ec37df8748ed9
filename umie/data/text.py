"""What the readers share: fields, file names, and tokens with their spans."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TypeVar

from umie.errors import UmieError, at, check_characters, shown
from umie.files import decode_utf8
from umie.records import Span
from umie.records.fields import MAX_TEXT

T = TypeVar("T")

_SPARE_SPACES = 64
_MAX_NAME_BYTES = 240  # file systems take 255, an ending among them

_TYPE_NAMES: dict[type, str] = {
    str: "a string that is not empty",
    list: "a list",
    dict: "an object with named fields",
}


def load_json(path: Path) -> object:
    """Return what a JSON file holds; raise UmieError if it cannot be read."""
    with at(str(path)):
        try:
            return json.loads(decode_utf8(path.read_bytes()).removeprefix("\ufeff"))
        except OSError as error:
            raise UmieError(f"cannot read: {error.strerror}") from error
        except UmieError:
            raise
        except (ValueError, RecursionError) as error:  # not JSON, nested too deep, an endless integer
            raise UmieError(f"not valid JSON: {error}") from error


def field(data: object, key: str, kind: type[T], owner: str) -> T:
    """Return ``data[key]``, which must be there and of the kind.

    Args:
        data: what was read; it must be a dict.
        key: the field.
        kind: str, list or dict; a string may not be empty.
        owner: what ``data`` is called in messages.

    Raises:
        UmieError: ``data`` is not a dict, the field is missing, or it is of another kind.
    """
    if not isinstance(data, dict):
        raise UmieError(f"{owner} is {shown(data)}: expected an object with the field {shown(key)}")
    if key not in data:
        raise UmieError(f"{owner} has no field {shown(key)}: add it")
    value = data[key]
    if not isinstance(value, kind) or value == "":
        raise UmieError(f"field {shown(key)} of {owner} is {shown(value)}: expected {_TYPE_NAMES[kind]}")
    if isinstance(value, str):
        check_characters(value, f"field {shown(key)} of {owner}")
    return value


def file_name(name: str, owner: str) -> str:
    """Return ``name`` if it can be the name of a file in a folder; raise UmieError if not, or if it leads elsewhere."""
    if name in ("", ".", "..") or any(sign in name for sign in "/\\\0"):
        raise UmieError(f"{owner} is {shown(name)}: expected a plain file name, without folders")
    if len(name.encode("utf-8", "surrogatepass")) > _MAX_NAME_BYTES or len(name.splitlines()) > 1:
        raise UmieError(
            f"{owner} is {shown(name)}: expected a file name of one line and {_MAX_NAME_BYTES} bytes at most"
        )
    return name


def check_folder(path: str | Path, name: str) -> None:
    """Raise UmieError if ``path``, given as the argument ``name``, is not a folder."""
    if not Path(path).is_dir():
        raise UmieError(f"{path}: no such folder; give {name} an existing one, or leave it out")


def refuse_regions(path: str | Path, regions: object, name: str) -> None:
    """Raise UmieError if ``regions`` was given to a format that has no files for them."""
    if regions is not None:
        raise UmieError(f"{path}: the format {name!r} has no separate files of regions; leave regions out")


class Tokens:
    """A text made of tokens joined by one space, and the character spans of the tokens.

    Raises:
        UmieError: there are no tokens, one is empty or not a string, or the text is longer than MAX_TEXT.
    """

    def __init__(self, tokens: list[str]) -> None:
        if not tokens:
            raise UmieError("there are no tokens: every record needs a text")
        self._spans: list[Span] = []
        start = 0
        for number, token in enumerate(tokens):
            if not isinstance(token, str) or not token:
                raise UmieError(f"token {number} is {shown(token)}: expected a string that is not empty")
            self._spans.append((start, start + len(token)))
            start += len(token) + 1
        if start > MAX_TEXT:
            raise UmieError(f"the text has {start - 1:,} characters: give {MAX_TEXT:,} or fewer, or part it")
        self.text = " ".join(tokens)
        check_characters(self.text, "the text")

    def span(self, start: object, end: object, owner: str, name: object = None) -> Span:
        """Return the character span of the tokens ``start`` to ``end``, end excluded.

        Args:
            start: offset of the first token.
            end: offset behind the last token.
            owner: what the span is called in messages.
            name: what the span covers, to be checked; white space may differ, as in 479 of MNRE-1.

        Raises:
            UmieError: the offsets are no integers or do not lie inside the text, or the name differs.
        """
        if type(start) is not int or type(end) is not int:
            raise UmieError(f"{owner} is at {shown([start, end])}: expected two token offsets")
        if not 0 <= start < end <= len(self._spans):
            raise UmieError(
                f"{owner} is at tokens {shown([start, end])} of {len(self._spans)}: "
                "expected 0 <= start < end <= that number"
            )
        span = self._spans[start][0], self._spans[end - 1][1]
        covered = self.text[slice(*span)]
        # a short name cannot cover a long stretch: told before the stretch is gone through, or many names cost too much
        fits = isinstance(name, str) and span[1] - span[0] <= 2 * len(name) + _SPARE_SPACES
        if name is not None and not (fits and _squeezed(str(name)) == _squeezed(covered)):
            raise UmieError(f"{owner} is named {shown(name)}, but covers {shown(covered)}: mend one of them")
        return span


def _squeezed(text: str) -> str:
    return "".join(text.split())
