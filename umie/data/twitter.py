"""Twitter-15 and Twitter-17: tagged tweets, one token per line.

Source: the files of jefferyYu/UMT: a header ``IMGID:<id>``, then ``token<TAB>tag`` lines with BIO tags PER,
LOC, ORG, MISC or OTHER.
"""

from __future__ import annotations

from umie.data import registry
from umie.data.tweets import TagSet, tweet_reader

LABELS = {
    "PER": "person",
    "LOC": "location",
    "MISC": "miscellaneous",
    "OTHER": "miscellaneous",  # Twitter-15 and GMNER use OTHER instead of MISC
    "ORG": "organization",
}
_TAG_SET = TagSet("Twitter-15/17", LABELS)

read = registry.register("twitter")(tweet_reader(_TAG_SET))
