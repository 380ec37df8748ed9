"""Tagged tweets, one token per line: the reader of several data sets that differ in their tags."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from umie.data.consistency import RecordIds
from umie.data.reading import OnError, OptionalPath, check_folder, read_boxes, report
from umie.data.tagged import HEADER, Sentence, Tag, sentences
from umie.errors import UmieError, UnknownNameError, shown
from umie.records import Entity, Record, Region
from umie.records.notes import take_note

_OTHER_FORMS = "the format conll reads other tags and columns"
_MANY_TWEETS = 20
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
        self.tags: dict[str, Tag] = {tag: (tag[0], tag[2:]) for tag in _tags(names)}
        self._lowercase = {tag.lower(): tag for tag in self.tags} if any_case else {}
        self.form = "token<TAB>tag" if middle is None else "token<TAB>coarse tag<TAB>fine tag"  # of a line

    def parse(self, line: str, sentence: Sentence | None) -> tuple[str, Tag]:
        """Return token and tag of a line; raise UmieError if it has none, or the tag is unknown."""
        if sentence is None:
            problem = f"is not part of a tweet: begin each tweet with '{HEADER}<id>'; {_OTHER_FORMS}"
            raise UmieError(f"{shown(line)} {problem}")
        parts = line.split("\t")
        expected = 2 if self.middle is None else 3
        while len(parts) > expected and not parts[-1].strip():  # tabs at the end
            parts.pop()
        token, tag = parts[0], parts[-1].strip()
        if not token or len(parts) != expected:
            raise UmieError(f"{shown(line)} is not a token: expected '{self.form}'; {_OTHER_FORMS}")
        if self.middle is not None and parts[1].strip().lower() not in self.middle:
            raise UnknownNameError("coarse tag", parts[1].strip()[:80], self.middle)
        known = self.tags.get(tag) or self.tags.get(self._lowercase.get(tag.lower(), ""))
        if known is None:
            error = UnknownNameError("tag", tag[:80], self.tags)
            raise UmieError(f"{error} {_OTHER_FORMS[0].upper()}{_OTHER_FORMS[1:]}.")
        return token, known


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
        ``<id>.xml``; a tweet without a file has no regions. An entity has the regions whose name is its text, apart
        from case and spaces.

        Raises:
            UmieError: the file cannot be read, or ``regions`` is not a directory; without ``on_error``, a line is
                neither a header nor a token, a tag is unknown, a tweet has no tokens, or a VOC file cannot be read.
        """
        path = Path(path)
        if regions is not None:
            check_folder(regions, "regions")
        folder = None if images is None else str(images)
        ids = RecordIds()
        num_tweets = num_annotated = 0
        for tweet in sentences(path, tag_set.parse, on_error):
            try:
                boxes = (
                    None if regions is None else read_boxes(regions, f"{tweet.image_id}.xml", images, tweet.image_name)
                )
            except UmieError as error:  # its message begins with the VOC file
                report(error, on_error)
                continue
            try:
                text, spans = tweet.annotated()
                record = Record(
                    text=text,
                    image=None if images is None else tweet.image_name,
                    image_folder=folder,
                    regions=boxes or (),
                    entities=tuple(
                        Entity(tag_set.names[kind], span, regions=_named(boxes or (), text[slice(*span)]))
                        for kind, span in spans
                    ),
                    id=ids.unique(str(tweet.image_id)),
                    tasks=("mner",),
                    source=f"{tag_set.source}: {path.name}",
                    license=TWITTER_LICENSE,
                    labels=tag_set.schema,
                )
            except UmieError as error:
                report(error, on_error, f"{path}:{tweet.line}")
                continue
            num_tweets, num_annotated = num_tweets + 1, num_annotated + (boxes is not None)
            yield record
        if regions is not None and num_tweets and not num_annotated:
            problem = f"{regions} has no file <id>.xml for any of the {num_tweets:,} tweets of {path}"
            if num_tweets >= _MANY_TWEETS:  # a few may have no boxes
                raise UmieError(f"{path}: {problem}: use the directory of theirs as regions, or leave it out")
            take_note(problem)

    read.__qualname__ = f"read of {tag_set.source}"  # a registry identifies a part by module and qualified name
    return read


def _named(regions: Sequence[Region], text: str) -> tuple[int, ...]:
    """Return the indices of the regions with a name."""
    name = _bare(text)
    return tuple(index for index, region in enumerate(regions) if _bare(region.label or "") == name)


def _bare(name: str) -> str:
    return "".join(name.split()).casefold()


def _tags(names: Mapping[str, str] | Sequence[str]) -> Iterator[str]:
    yield "O"
    for name in names:
        yield f"B-{name}"
        yield f"I-{name}"
