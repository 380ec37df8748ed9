"""Helpers of all readers: lines and objects with their errors, fields, file names, and tokens with their spans."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

from umie.errors import UmieError, check_characters, shown
from umie.files import bounded_lines, check_numbers, inside
from umie.images import image_ending
from umie.records import Region, Span
from umie.records.jsonl import MAX_TEXT
from umie.records.voc import read_voc

T = TypeVar("T")
OnError: TypeAlias = Callable[[UmieError], None]
OptionalPath: TypeAlias = str | Path | None

MAX_LINE_BYTES = 1 << 20  # the longest line of the published files has 425 bytes (MNRE)
_SPARE_SPACES = 64
_MAX_NAME_BYTES = 240  # file systems take 255, an ending among them


def report(error: UmieError, on_error: OnError | None, place: str = "") -> None:
    """Pass the error of a record to ``on_error``, or raise it if there is no ``on_error``.

    ``place``, file and line or key, is prepended to the message; it is empty if the message already begins with it.
    """
    placed = UmieError(f"{place}: {error}") if place else error
    if on_error is None:
        raise placed from error
    on_error(placed)


def numbered_lines(path: Path, max_bytes: int = MAX_LINE_BYTES) -> Iterator[tuple[int, str | UmieError]]:
    """Yield the numbered lines of a UTF-8 file, or their errors; see ``umie.files.bounded_lines``."""
    return bounded_lines(path, max_bytes, f"the line has more than {max_bytes:,} bytes: split or remove it")


def parsed_lines(
    path: Path, parse: Callable[[int, str], T], on_error: OnError | None, max_bytes: int = MAX_LINE_BYTES
) -> Iterator[T]:
    """Yield ``parse(number, line)`` for each line that is not blank; see ``report`` for errors."""
    for number, line in numbered_lines(path, max_bytes):
        try:
            if isinstance(line, UmieError):
                raise line
            if not line or line.isspace():
                continue
            parsed = parse(number, line)
        except UmieError as error:
            report(error, on_error, f"{path}:{number}")
            continue
        yield parsed


def parsed_entries(
    path: Path, data: Mapping[str, Any], parse: Callable[[str, Any], T], on_error: OnError | None
) -> Iterator[T]:
    """Yield ``parse(key, value)`` for each entry of the object in a file; see ``report`` for errors."""
    for key, value in data.items():
        try:
            check_numbers(value)
            parsed = parse(key, value)
        except UmieError as error:
            report(error, on_error, f"{path}: {bare(key)}")
            continue
        yield parsed


def bare(name: str) -> str:
    """Return a name for a message, shortened and without quotes."""
    return shown(name)[1:-1]


def field(data: object, key: str, kind: type[T], owner: str) -> T:
    """Return ``data[key]``, a non-empty string, a list or a dict by ``kind``; ``owner`` names ``data`` in the error."""
    if not isinstance(data, dict):
        raise UmieError(f"{owner} is {shown(data)}: expected an object with the field {shown(key)}")
    if key not in data:
        raise UmieError(f"{owner} has no field {shown(key)}")
    value = data[key]
    if not isinstance(value, kind) or value == "":
        names: dict[type, str] = {str: "a non-empty string", list: "a list", dict: "an object with named fields"}
        raise UmieError(f"field {shown(key)} of {owner} is {shown(value)}: expected {names[kind]}")
    if isinstance(value, str):
        check_characters(value, f"field {shown(key)} of {owner}")
    return value


def are_numbers(value: object, count: int) -> bool:
    """Return whether a value is a list of ``count`` numbers, which ``true`` and ``false`` are not."""
    return isinstance(value, list) and [type(item) in (int, float) for item in value] == [True] * count


def pixel_size(data: object, key: str, owner: str) -> tuple[float, float]:
    """Return ``data[key]``, the width and height of an image; ``owner`` names ``data`` in the error."""
    size = field(data, key, list, owner)
    if not are_numbers(size, 2):
        raise UmieError(f"field {key!r} of {owner} is {shown(size)}: expected two numbers of pixels")
    return size[0], size[1]


def file_name(name: str, owner: str) -> str:
    """Return ``name`` after checking that it is a valid file name without directories."""
    if name in ("", ".", "..") or any(sign in name for sign in "/\\\0"):
        raise UmieError(f"{owner} is {shown(name)}: expected a file name without directories")
    if len(name.encode("utf-8", "surrogatepass")) > _MAX_NAME_BYTES or len(name.splitlines()) > 1:
        raise UmieError(f"{owner} is {shown(name)}: expected a single line of at most {_MAX_NAME_BYTES} bytes")
    return name


def image_file(name: str, owner: str) -> tuple[str, str]:
    """Return the id and the file name of an image, from a name with an ending, or from one without, of a .jpg file."""
    file_name(name, owner)
    ending = image_ending(name)
    return (name.removesuffix(ending), name) if ending else (name, f"{name}.jpg")


def check_folder(path: str | Path, name: str) -> None:
    """Raise UmieError if ``path``, the value of the argument ``name``, is not a directory."""
    if not Path(path).is_dir():
        raise UmieError(f"{path}: no such directory; use an existing one as {name}, or leave it out")


def refuse_regions(path: str | Path, regions: object, name: str) -> None:
    """Raise UmieError if ``regions`` is given to a format without separate region files."""
    if regions is not None:
        raise UmieError(f"{path}: the format {name!r} has no separate region files; leave regions out")


def read_boxes(
    regions: str | Path, name: str, images: OptionalPath = None, image: str | None = None
) -> tuple[Region, ...] | None:
    """Return the regions in a VOC file of a directory, None if there is none; ``image`` is the image in ``images``."""
    picture = None if images is None or image is None else inside(images, image)
    return read_voc(inside(regions, name), image=picture)


class Tokens:
    """A text of tokens joined by single spaces, or by ``join``, with the character spans of the tokens.

    Raises:
        UmieError: there are no tokens, a token is empty or not a string, or the text is longer than MAX_TEXT.
    """

    def __init__(self, tokens: list[str], join: str = " ") -> None:
        if not tokens:
            raise UmieError("there are no tokens: every record needs a text")
        self._spans: list[Span] = []
        start = 0
        for number, token in enumerate(tokens):
            if not isinstance(token, str) or not token:
                raise UmieError(f"token {number} is {shown(token)}: expected a non-empty string")
            self._spans.append((start, start + len(token)))
            start += len(token) + len(join)
        if start - len(join) > MAX_TEXT:
            raise UmieError(f"the text has {start - len(join):,} characters; the limit is {MAX_TEXT:,}: split it")
        self.text = join.join(tokens)
        check_characters(self.text, "the text")

    def span(self, start: object, end: object, owner: str, name: object = None) -> Span:
        """Return the character span of the tokens from ``start`` to ``end``, end exclusive; ``owner`` is for messages.

        ``name`` is the expected text of the span; whitespace may differ, as it does 479 times in MNRE-1.
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
        # compare lengths first: comparing many short names with long spans would take quadratic time
        fits = isinstance(name, str) and span[1] - span[0] <= 2 * len(name) + _SPARE_SPACES
        if name is not None and not (fits and "".join(str(name).split()) == "".join(covered.split())):
            raise UmieError(f"{owner} is named {shown(name)}, but its tokens are {shown(covered)}: fix one of them")
        return span

    def mention(self, data: Mapping[str, Any], owner: str) -> Span:
        """Return the span of an object with the token offsets ``start`` and ``end``, and perhaps its ``text``."""
        return self.span(data.get("start"), data.get("end"), owner, data.get("text"))
