"""SNAP: tagged tweets in the form of Twitter-17, which was drawn from it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from umie.data import registry
from umie.data._conll import TagSet, read_tweets
from umie.data._reading import OnError
from umie.data.twitter import LABELS
from umie.records import Record

_TAG_SET = TagSet("SNAP", {**LABELS, **{name.upper(): name for name in LABELS.values()}}, any_case=True)


@registry.register("snap")
def read(
    path: str | Path,
    *,
    images: str | Path | None = None,
    regions: str | Path | None = None,
    on_error: OnError | None = None,
) -> Iterator[Record]:
    """Yield the tweets of a SNAP file as MNER records; ``umie.data._conll.read_tweets`` says how.

    Source: Lu et al. 2018, "Visual attention model for name tagging in multimodal social media": persons,
    locations, organizations and miscellaneous. The set is handed out on request; as its users read it
    (Multimodal-NER/RpBERT), it has a header ``IMGID:<id>`` and ``token<TAB>tag`` lines with BIO tags PER, LOC, ORG
    and MISC. Copies that say OTHER, spell the type out (``B-person``) or write it in small letters are read alike.

    Args:
        path: the file.
        images: the folder of the pictures, ``<id>.jpg``; without it the records have none.
        regions: a folder of Pascal-VOC files, ``<id>.xml``; a tweet without a file has no regions.
        on_error: called with the error of each tweet that cannot be read, which is passed over.

    Raises:
        UmieError: the file cannot be read; without ``on_error``, a tweet cannot be.
    """
    return read_tweets(path, _TAG_SET, images, regions, on_error)
