"""Tagged tweets, one token a line, as several data sets have them: what each calls its tags, and how all are read."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path

from umie.data.reading import OnError, numbered_lines, report
from umie.data.text import Tokens, check_folder, file_name
from umie.errors import UmieError, UnknownNameError, shown
from umie.records import Entity, Record, Region
from umie.records.fields import MAX_TEXT
from umie.records.voc import read_voc

_HEADER = "IMGID:"
TWITTER_LICENSE = "research use only; X (Twitter) terms; no license file"


class TagSet:
    """The tags of a data set.

    Args:
        source: the name of the data set.
        names: the label of each name that stands behind ``B-`` or ``I-``.
        middle: names that may stand in a column between token and tag; None where a line has two columns.
        any_case: whether upper and lower case of a name are the same.
    """

    def __init__(
        self, source: str, names: Mapping[str, str], middle: Sequence[str] | None = None, *, any_case: bool = False
    ) -> None:
        self.source = source
        self.names = dict(names)
        self.middle = None if middle is None else frozenset(tag.lower() for tag in _tags(middle))
        self.any_case = any_case
        self.schema = {"mner": tuple(dict.fromkeys(names.values()))}  # one for all records

    @cached_property
    def tags(self) -> frozenset[str]:
        """Every tag, ``O`` among them."""
        return frozenset(_tags(self.names))

    @cached_property
    def _in_small_letters(self) -> dict[str, str]:
        return {tag.lower(): tag for tag in self.tags} if self.any_case else {}

    @property
    def form(self) -> str:
        """How a line looks, for messages."""
        return "token<TAB>tag" if self.middle is None else "token<TAB>coarse tag<TAB>fine tag"

    def check(self, tag: str) -> str:
        """Return a tag as ``names`` spells it; raise UmieError if there is none such."""
        if tag in self.tags:
            return tag
        known = self._in_small_letters.get(tag.lower())
        if known is None:
            raise UnknownNameError("tag", tag[:80], self.tags)
        return known


class _Tweet:
    __slots__ = ("image_id", "length", "line", "tags", "tokens")

    def __init__(self, line: int, image_id: str) -> None:
        self.line = line
        self.image_id = image_id
        self.tokens: list[str] = []
        self.tags: list[str] = []
        self.length = 0

    def add(self, token: str, tag: str) -> None:
        self.length += len(token) + 1
        if self.length > MAX_TEXT:  # told at once: a file of another kind may go on for ever
            raise UmieError(f"the tweet of line {self.line} has more than {MAX_TEXT:,} characters: part it")
        self.tokens.append(token)
        self.tags.append(tag)


def tweet_reader(tag_set: TagSet) -> Callable[..., Iterator[Record]]:
    """Return the reader of a data set of tagged tweets; its module says where the files are from."""

    def read(
        path: str | Path,
        *,
        images: str | Path | None = None,
        regions: str | Path | None = None,
        on_error: OnError | None = None,
    ) -> Iterator[Record]:
        """Yield the tweets of a file as MNER records; ``read_tweets`` says how, and what the arguments are."""
        return read_tweets(path, tag_set, images, regions, on_error)

    read.__qualname__ = f"read of {tag_set.source}"  # a registry tells parts apart by where they are defined
    return read


def read_tweets(
    path: str | Path,
    tag_set: TagSet,
    images: str | Path | None,
    regions: str | Path | None,
    on_error: OnError | None,
) -> Iterator[Record]:
    """Yield the tweets of a CoNLL file as MNER records; the text is the tokens joined by one space.

    A header ``IMGID:<id>``, then a line for each token; a blank line or the next header ends the tweet. An
    ``I-`` tag that continues no entity of its type begins one, as in the CoNLL scorer: in Twitter-15 it is mostly
    a name, or the rest of one, behind a full stop (``Dr . John/I-PER Bosman/I-PER``).

    Args:
        path: the file.
        tag_set: the tags of the data set.
        images: the folder of the images, ``<id>.jpg``; without it the records have none.
        regions: a folder of Pascal-VOC files, ``<id>.xml``; a tweet without a file has no regions.
        on_error: called with the error of each tweet that cannot be read, one a tweet.

    Raises:
        UmieError: the file cannot be read, or ``regions`` is no folder; without ``on_error``, a line that is
            neither header nor token, an unknown tag, a tweet without tokens, a VOC file that cannot be read.
    """
    path = Path(path)
    if regions is not None:
        check_folder(regions, "regions")
    source = f"{tag_set.source}: {path.name}"
    folder = None if images is None else str(images)
    for tweet in _tweets(path, tag_set, on_error):
        try:
            boxes = _regions(regions, tweet.image_id)
        except UmieError as error:  # it names the VOC file
            report(error, on_error)
            continue
        try:
            tokens = Tokens(tweet.tokens)
            record = Record(
                text=tokens.text,
                image=None if images is None else f"{tweet.image_id}.jpg",
                image_folder=folder,
                regions=boxes,
                entities=tuple(
                    Entity(tag_set.names[kind], tokens.span(start, end, "entity"))
                    for kind, start, end in _chunks(tweet.tags)
                ),
                id=tweet.image_id,
                tasks=("mner",),
                source=source,
                license=TWITTER_LICENSE,
                labels=tag_set.schema,
            )
        except UmieError as error:
            report(error, on_error, f"{path}:{tweet.line}")
            continue
        yield record


def _tweets(path: Path, tag_set: TagSet, on_error: OnError | None) -> Iterator[_Tweet]:
    """Yield the tweets; of one with an error, what follows the error is passed over."""
    tweet: _Tweet | None = None
    skipping = False
    tags = tag_set.tags
    num_columns = 2 if tag_set.middle is None else 3
    for number, line in numbered_lines(path):
        try:
            if isinstance(line, UmieError):
                raise line
            if not line or line.isspace():
                if tweet is not None:
                    yield tweet
                tweet, skipping = None, False
            elif line.startswith(_HEADER) and "\t" not in line:
                if tweet is not None:
                    yield tweet
                tweet, skipping = None, False
                tweet = _Tweet(number, file_name(line[len(_HEADER) :].strip(), "the id of the image"))
            elif not skipping:
                if tweet is None:
                    raise UmieError(f"{shown(line)} belongs to no tweet: begin each with '{_HEADER}<id>'")
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


def _tags(names: Mapping[str, str] | Sequence[str]) -> Iterator[str]:
    yield "O"
    for name in names:
        yield f"B-{name}"
        yield f"I-{name}"
