"""FMNERG: the tweets and boxes of GMNER, with 51 fine types instead of 4."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from umie.data import registry
from umie.data._conll import TagSet, read_tweets
from umie.data._reading import OnError
from umie.records import Record

FINE_TYPES = {  # coarse type -> fine types, as the files spell them ("ordinance" too)
    "location": ("city", "country", "state", "continent", "location_other", "park", "road"),
    "building": ("building_other", "cultural_place", "entertainment_place", "sports_facility"),
    "organization": (
        "company", "educational_institution", "band", "government_agency", "news_agency", "organization_other",
        "political_party", "social_organization", "sports_league", "sports_team",
    ),
    "person": (
        "politician", "musician", "actor", "artist", "athlete", "author", "businessman", "character", "coach",
        "director", "intellectual", "journalist", "person_other",
    ),
    "other": ("animal", "award", "medical_thing", "website", "ordinance"),
    "art": ("art_other", "film_and_television_works", "magazine", "music", "written_work"),
    "event": ("event_other", "festival", "sports_event"),
    "product": ("brand_name_products", "game", "product_other", "software"),
}  # fmt: skip
_TAG_SET = TagSet(
    "FMNERG",
    {fine: fine.replace("_", " ") for types in FINE_TYPES.values() for fine in types},
    middle=tuple(FINE_TYPES),
    any_case=True,
)


@registry.register("fmnerg")
def read(
    path: str | Path,
    *,
    images: str | Path | None = None,
    regions: str | Path | None = None,
    on_error: OnError | None = None,
) -> Iterator[Record]:
    """Yield the tweets of an FMNERG file as MNER records of the fine types; ``read_tweets`` says how.

    Source: the files of NUSTM/FMNERG, ``txt_fine/``: a header ``IMGID:<id>``, then
    ``token<TAB>coarse tag<TAB>fine tag`` lines, such as ``Ted<TAB>B-person<TAB>B-politician``. An entity is what the
    fine tags mark, its type the fine one with spaces ('sports team'); ``FINE_TYPES`` says which coarse type that
    is. The boxes are those of GMNER.

    Args:
        path: the file.
        images: the folder of the pictures, ``<id>.jpg``; without it the records have none.
        regions: the folder of GMNER's Pascal-VOC files, ``<id>.xml``; a tweet without a file has no regions.
        on_error: called with the error of each tweet that cannot be read, which is passed over.

    Raises:
        UmieError: the file cannot be read; without ``on_error``, a tweet cannot be.
    """
    return read_tweets(path, _TAG_SET, images, regions, on_error)
