"""FMNERG: the tweets and boxes of GMNER, with 51 fine-grained types instead of 4.

Source: the files of NUSTM/FMNERG, ``txt_fine/``: a header ``IMGID:<id>``, then lines of
``token<TAB>coarse tag<TAB>fine tag``, such as ``Ted<TAB>B-person<TAB>B-politician``. Entities are defined by the fine
tags; their type is the fine type with spaces ('sports team'). ``FINE_TYPES`` groups the fine types by coarse type. The
boxes are those of GMNER.
"""

from __future__ import annotations

from umie.data import registry
from umie.data.tweets import TagSet, tweet_reader

FINE_TYPES = {  # coarse type -> fine types, in the spelling of the files (including "ordinance")
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

read = registry.register("fmnerg")(tweet_reader(_TAG_SET))
