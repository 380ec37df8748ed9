"""Twitter-15 and Twitter-17: tagged tweets, one token a line."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from umie.data import registry
from umie.data._conll import TagSet, read_tweets
from umie.data._reading import OnError
from umie.records import Record

LABELS = {
    "PER": "person",
    "LOC": "location",
    "MISC": "miscellaneous",
    "OTHER": "miscellaneous",  # Twitter-15 and GMNER say OTHER where Twitter-17 says MISC
    "ORG": "organization",
}
_TAG_SET = TagSet("Twitter-15/17", LABELS)


@registry.register("twitter")
def read(
    path: str | Path,
    *,
    images: str | Path | None = None,
    regions: str | Path | None = None,
    on_error: OnError | None = None,
) -> Iterator[Record]:
    """Yield the tweets of a CoNLL file as MNER records; ``umie.data._conll.read_tweets`` says how.

    Source: the files of jefferyYu/UMT: a header ``IMGID:<id>``, then ``token<TAB>tag`` lines with BIO tags PER,
    LOC, ORG, MISC or OTHER.

    Args:
        path: the file.
        images: the folder of the pictures, ``<id>.jpg``; without it the records have none.
        regions: a folder of Pascal-VOC files, ``<id>.xml``; a tweet without a file has no regions.
        on_error: called with the error of each tweet that cannot be read, which is passed over.

    Raises:
        UmieError: the file cannot be read; without ``on_error``, a tweet cannot be.
    """
    return read_tweets(path, _TAG_SET, images, regions, on_error)
