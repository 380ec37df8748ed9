"""GMNER (Twitter10000 v2): tagged tweets as in Twitter-15, with boxes in Pascal-VOC files."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from umie.data import registry
from umie.data._conll import TagSet, read_tweets
from umie.data._reading import OnError
from umie.data.twitter import LABELS
from umie.records import Record

_TAG_SET = TagSet("GMNER", LABELS)


@registry.register("gmner")
def read(
    path: str | Path,
    *,
    images: str | Path | None = None,
    regions: str | Path | None = None,
    on_error: OnError | None = None,
) -> Iterator[Record]:
    """Yield the tweets of a CoNLL file as MNER records; ``umie.data._conll.read_tweets`` says how.

    Source: the files of NUSTM/GMNER, ``txt/`` as path and ``xml/`` as regions. The name of a box is the text of
    the entity that it shows.

    Args:
        path: the file.
        images: the folder of the pictures, ``<id>.jpg``; without it the records have none.
        regions: the folder of the Pascal-VOC files, ``<id>.xml``; a tweet without a file has no regions.
        on_error: called with the error of each tweet that cannot be read, which is passed over.

    Raises:
        UmieError: the file cannot be read; without ``on_error``, a tweet cannot be.
    """
    return read_tweets(path, _TAG_SET, images, regions, on_error)
