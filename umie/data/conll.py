"""Tagged tweets, one token per line: the reader of several data sets that differ in their tags."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from umie.data.reading import OnError, OptionalPath, Tokens, check_folder, file_name, numbered_lines, report
from umie.errors import UmieError, UnknownNameError, shown
from umie.records import Entity, Record
from umie.records.jsonl import MAX_TEXT
from umie.records.voc import read_voc

_HEADER = "IMGID:"
TWITTER_LICENSE = "research use only; X (Twitter) terms; no license file"


class TagSet:
    """The tags of a data set.

    Args:
        source: the name of the data set.
        names: the entity types after ``B-`` or ``I-``, and their labels.
        middle: the entity types of a column between token and tag; None if a line has two columns.
        any_case: whether entity types are case-insensitive.
    """

    def __init__(
        self, source: str, names: Mapping[str, str], middle: Sequence[str] | None = None, *, any_case: bool = False
    ) -> None:
        self.source = source
        self.names = dict(names)
        self.middle = None if middle is None else {tag.lower() for tag in _tags(middle)}
        self.schema = {"mner": tuple(dict.fromkeys(names.values()))}  # shared by all records
        self.tags = set(_tags(names))
        self._lowercase = {tag.lower(): tag for tag in self.tags} if any_case else {}
        self.form = "token<TAB>tag" if middle is None else "token<TAB>coarse tag<TAB>fine tag"  # of a line

    def check(self, tag: str) -> str:
        """Return a tag in the spelling of ``names``; raise UnknownNameError if the tag is unknown."""
        if tag in self.tags:
            return tag
        known = self._lowercase.get(tag.lower())
        if known is None:
            raise UnknownNameError("tag", tag[:80], self.tags)
        return known


@dataclass(slots=True)
class _Tweet:
    line: int
    image_id: str
    tokens: list[str] = field(default_factory=list)
    tags: list[str] = field(default_factory=list)
    length: int = 0

    def add(self, token: str, tag: str) -> None:
        self.length += len(token) + 1
        if self.length > MAX_TEXT:  # checked early: a file in another format may never end
            raise UmieError(f"the tweet of line {self.line} has more than {MAX_TEXT:,} characters: split it")
        self.tokens.append(token)
        self.tags.append(tag)


def tweet_reader(tag_set: TagSet) -> Callable[..., Iterator[Record]]:
    """Return the reader of a data set of tagged tweets."""

    def read(
        path: str | Path, *, images: OptionalPath = None, regions: OptionalPath = None, on_error: OnError | None = None
    ) -> Iterator[Record]:
        """Yield the tweets of a CoNLL file as MNER records; the text is the tokens joined by single spaces.

        A tweet is a header ``IMGID:<id>`` and one line per token, up to a blank line or the next header. An ``I-`` tag
        that does not continue an entity of its type begins a new one, as in the CoNLL scorer: in Twitter-15 it is
        mostly a name, or the rest of a name, after a period (``Dr . John/I-PER Bosman/I-PER``).

        ``images`` is the directory of the images, ``<id>.jpg``; ``regions`` is a directory of Pascal VOC files,
        ``<id>.xml``; a tweet without a file has no regions.

        Raises:
            UmieError: the file cannot be read, or ``regions`` is not a directory; without ``on_error``, a line is
                neither a header nor a token, a tag is unknown, a tweet has no tokens, or a VOC file cannot be read.
        """
        path = Path(path)
        if regions is not None:
            check_folder(regions, "regions")
        folder = None if images is None else str(images)
        for tweet in _tweets(path, tag_set, on_error):
            try:
                boxes = None if regions is None else read_voc(Path(regions) / f"{tweet.image_id}.xml")
            except UmieError as error:  # its message begins with the VOC file
                report(error, on_error)
                continue
            try:
                tokens = Tokens(tweet.tokens)
                spans = [(kind, tokens.span(start, end, "entity")) for kind, start, end in _chunks(tweet.tags)]
                record = Record(
                    text=tokens.text,
                    image=None if images is None else f"{tweet.image_id}.jpg",
                    image_folder=folder,
                    regions=boxes or (),
                    entities=tuple(Entity(tag_set.names[kind], span) for kind, span in spans),
                    id=tweet.image_id,
                    tasks=("mner",),
                    source=f"{tag_set.source}: {path.name}",
                    license=TWITTER_LICENSE,
                    labels=tag_set.schema,
                )
            except UmieError as error:
                report(error, on_error, f"{path}:{tweet.line}")
                continue
            yield record

    read.__qualname__ = f"read of {tag_set.source}"  # a registry identifies a part by module and qualified name
    return read


def _tweets(path: Path, tag_set: TagSet, on_error: OnError | None) -> Iterator[_Tweet]:
    """Yield the tweets; after an error, the rest of the tweet is skipped."""
    tweet: _Tweet | None = None
    skipping = False
    tags = tag_set.tags
    num_columns = 2 if tag_set.middle is None else 3
    for number, line in numbered_lines(path):
        try:
            if isinstance(line, UmieError):
                raise line
            is_header = line.startswith(_HEADER) and "\t" not in line
            if is_header or not line or line.isspace():
                if tweet is not None:
                    yield tweet
                tweet, skipping = None, False
                if is_header:
                    tweet = _Tweet(number, file_name(line[len(_HEADER) :].strip(), "the id of the image"))
            elif not skipping:
                if tweet is None:
                    raise UmieError(f"{shown(line)} is not part of a tweet: begin each tweet with '{_HEADER}<id>'")
                parts = line.split("\t")
                token, tag = parts[0], parts[-1].strip()
                if not token or len(parts) != num_columns:
                    raise UmieError(f"{shown(line)} is not a token: expected '{tag_set.form}'")
                if tag_set.middle is not None and parts[1].strip().lower() not in tag_set.middle:
                    raise UnknownNameError("coarse tag", parts[1].strip()[:80], tag_set.middle)
                tweet.add(token, tag if tag in tags else tag_set.check(tag))
        except UmieError as error:
            if not skipping:
                report(error, on_error, f"{path}:{number}")
            tweet, skipping = None, True
    if tweet is not None:
        yield tweet


def _chunks(tags: Sequence[str]) -> Iterator[tuple[str, int, int]]:
    """Yield type, first token and end of the entities marked by BIO tags."""
    kind, start = "", 0
    for index, tag in enumerate([*tags, "O"]):
        if kind and tag != f"I-{kind}":
            yield kind, start, index
            kind = ""
        if not kind and tag != "O":
            kind, start = tag[2:], index


def _tags(names: Mapping[str, str] | Sequence[str]) -> Iterator[str]:
    yield "O"
    for name in names:
        yield f"B-{name}"
        yield f"I-{name}"
