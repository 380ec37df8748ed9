"""Files with one token per line: their sentences, and the spans that tags mark."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

from umie.data.reading import OnError, Tokens, image_file, numbered_lines, report
from umie.errors import UmieError, shown
from umie.images import image_ending
from umie.records import Span
from umie.records.jsonl import MAX_TEXT

HEADER = "IMGID:"
_HEADER = re.compile(r"\s*IMG_?ID\s*[:：]", re.IGNORECASE)
_TAG_OF_HEADER = re.compile(r"(\s+(O|X|-X-|_))+$")
_SEPARATORS = re.compile(r"[\s,;|]+")
Tag: TypeAlias = tuple[str, str]  # B, I, O, E, S, L or U, and the entity type; ("O", "") outside all entities
OUTSIDE: Tag = ("O", "")


@dataclass(slots=True)
class Sentence:
    """A sentence, and the id and the file name of its image if it has a header."""

    line: int
    image_id: str | None
    image_name: str | None = None
    tokens: list[str] = field(default_factory=list)
    tags: list[Tag] = field(default_factory=list)
    length: int = 0

    def add(self, token: str, tag: Tag) -> None:
        """Add a token; raise UmieError if the text becomes too long."""
        self.length += len(token) + 1
        if self.length > MAX_TEXT + 1:  # checked early: a file in another format may never end
            raise UmieError(f"the text of line {self.line} has more than {MAX_TEXT:,} characters: split it")
        self.tokens.append(token)
        self.tags.append(tag)

    def annotated(self, join: str = " ") -> tuple[str, list[tuple[str, Span]]]:
        """Return the text, and the type and span of each entity; raise UmieError if there is no valid text."""
        tokens = Tokens(self.tokens, join)
        return tokens.text, [(kind, tokens.span(start, end, "entity")) for kind, start, end in chunks(self.tags)]


def sentences(
    path: Path, parse: Callable[[str, Sentence | None], tuple[str, Tag] | None], on_error: OnError | None
) -> Iterator[Sentence]:
    """Yield the sentences of a file; after an error, the rest of the sentence is skipped.

    A sentence ends at a blank line or at the header of the next one: ``IMGID:<id>``, or the name of the image with its
    suffix, ``IMGID:<id>.png``; a tag that follows it, as in files with a tag in every line, is ignored.

    Args:
        path: the file.
        parse: returns the token and the tag of a line, or None if the line has no token; it gets the line and the
            sentence so far, which is None before the first token of a sentence without a header.
        on_error: see ``umie.data.reading.report``.
    """
    sentence: Sentence | None = None
    skipping = False
    for number, line in numbered_lines(path):
        try:
            if isinstance(line, UmieError):
                raise line
            header = _HEADER.match(line)
            if header is not None or not line or line.isspace():
                if sentence is not None:
                    yield sentence
                sentence, skipping = None, False
                if header is not None:
                    sentence = Sentence(number, *_image(line[header.end() :]))
            elif not skipping and (parsed := parse(line, sentence)) is not None:
                sentence = sentence or Sentence(number, None)
                sentence.add(*parsed)
        except UmieError as error:
            if not skipping:
                report(error, on_error, f"{path}:{number}")
            sentence, skipping = None, True
    if sentence is not None:
        yield sentence


def _image(written: str) -> tuple[str, str]:
    """Return the id and the file name of the image that a header names."""
    name = _TAG_OF_HEADER.sub("", written.strip())
    identifier, file = image_file(name, "the id of the image")
    several = [part for part in _SEPARATORS.split(name) if part]
    if len(several) > 1 and (image_ending(several[0]) or not image_ending(name)):  # not "my photo.jpg"
        raise UmieError(f"the id of the image is {shown(name)}: a record has one image; keep one id, without spaces")
    return identifier, file


def chunks(tags: Sequence[Tag]) -> Iterator[tuple[str, int, int]]:
    """Yield type, first token and end of the entities that tags mark, as the CoNLL scorer does, under any scheme.

    A tag that should continue an entity of its type, but does not, begins a new one.
    """
    kind, start, before = "", 0, "O"
    for index, (prefix, name) in enumerate([*tags, OUTSIDE]):
        if kind and (prefix in "BSUO" or name != kind or before in "ESLU"):
            yield kind, start, index
            kind = ""
        if not kind and prefix != "O":
            kind, start = name, index
        before = prefix
