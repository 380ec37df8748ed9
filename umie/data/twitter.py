"""Twitter-15, Twitter-17 and formats alike: tagged tweets, one token a line."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from umie.data import registry
from umie.data._text import Tokens, check_folder, file_name
from umie.data.voc import read_voc
from umie.errors import UmieError, UnknownNameError, at, shown
from umie.files import read_lines
from umie.records import Entity, Record, Region

_HEADER = "IMGID:"
_LABELS = {
    "PER": "person",
    "LOC": "location",
    "ORG": "organization",
    "MISC": "miscellaneous",
    "OTHER": "miscellaneous",  # Twitter-15 and GMNER say OTHER where Twitter-17 says MISC
}
_TAGS = frozenset({"O", *(f"{sign}-{name}" for sign in "BI" for name in _LABELS)})


@dataclass
class _Tweet:
    line: int
    image_id: str
    tokens: list[str] = field(default_factory=list)
    tags: list[str] = field(default_factory=list)


@registry.register("twitter")
def read(path: str | Path, *, images: str | Path | None = None, regions: str | Path | None = None) -> Iterator[Record]:
    """Yield the tweets of a CoNLL file as MNER records; the text is the tokens joined by one space.

    Source: the files of jefferyYu/UMT: a header ``IMGID:<id>``, then ``token<TAB>tag`` lines with BIO tags
    PER, LOC, ORG, MISC or OTHER; a blank line parts tweets. An ``I-`` tag that continues no entity of its
    type begins one, as in the CoNLL scorer: in Twitter-15 it is mostly a name, or the rest of one, behind a
    full stop (``Dr . John/I-PER Bosman/I-PER``).

    Args:
        path: the file.
        images: the folder of the pictures, ``<id>.jpg``; without it the records have none.
        regions: a folder of Pascal-VOC files, ``<id>.xml``; a tweet without a file has no regions.

    Raises:
        UmieError: a line that is neither header nor token, an unknown tag, a tweet without tokens, a VOC file
            that cannot be read.
    """
    path = Path(path)
    if regions is not None:
        check_folder(regions, "regions")
    for tweet in _tweets(path):
        boxes = _regions(regions, tweet.image_id)
        with at(f"{path}:{tweet.line}"):
            tokens = Tokens(tweet.tokens)
            record = Record(
                text=tokens.text,
                image=None if images is None else f"{tweet.image_id}.jpg",
                image_folder=None if images is None else str(images),
                regions=boxes,
                entities=tuple(
                    Entity(_LABELS[kind], tokens.span(start, end, "entity")) for kind, start, end in _chunks(tweet.tags)
                ),
                id=tweet.image_id,
                tasks=("mner",),
            )
        yield record


def _tweets(path: Path) -> Iterator[_Tweet]:
    tweet: _Tweet | None = None
    for number, line in read_lines(path):
        is_header = line.startswith(_HEADER) and "\t" not in line
        if tweet is not None and (is_header or not line.strip()):
            yield tweet
            tweet = None
        with at(f"{path}:{number}"):
            if is_header:
                image_id = line.removeprefix(_HEADER).strip()
                tweet = _Tweet(number, file_name(image_id, "the id of the picture"))
            elif line.strip():
                if tweet is None:
                    raise UmieError(f"{shown(line)} belongs to no tweet: begin each with '{_HEADER}<id>'")
                token, tag = _token(line)
                tweet.tokens.append(token)
                tweet.tags.append(tag)
    if tweet is not None:
        yield tweet


def _token(line: str) -> tuple[str, str]:
    token, tab, tag = line.partition("\t")
    if not tab or not token or "\t" in tag:
        raise UmieError(f"{shown(line)} is not a token: expected 'token<TAB>tag'")
    if tag.strip() not in _TAGS:
        raise UnknownNameError("tag", tag.strip(), _TAGS)
    return token, tag.strip()


def _chunks(tags: Sequence[str]) -> Iterator[tuple[str, int, int]]:
    """Yield type, first token and end of the entities that BIO tags mark."""
    kind, start = "", 0
    for index, tag in enumerate([*tags, "O"]):
        if kind and tag != f"I-{kind}":
            yield kind, start, index
            kind = ""
        if not kind and tag != "O":
            kind, start = tag[2:], index


def _regions(folder: str | Path | None, image_id: str) -> tuple[Region, ...]:
    if folder is None:
        return ()
    return read_voc(Path(folder) / f"{image_id}.xml") or ()
