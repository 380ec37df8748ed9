"""SNAP: tagged tweets in the format of Twitter-17, which is a subset of it.

Source: Lu et al. 2018, "Visual attention model for name tagging in multimodal social media": persons,
locations, organizations and miscellaneous. The data set is available on request; according to the code of its users
(Multimodal-NER/RpBERT), it has a header ``IMGID:<id>`` and ``token<TAB>tag`` lines with BIO tags PER, LOC, ORG and
MISC. Copies with OTHER, with types spelled out (``B-person``), or in lowercase are read in the same way.
"""

from __future__ import annotations

from umie.data import registry
from umie.data.tweets import TagSet, tweet_reader
from umie.data.twitter import LABELS

_TAG_SET = TagSet("SNAP", {**LABELS, **{name.upper(): name for name in LABELS.values()}}, any_case=True)

read = registry.register("snap")(tweet_reader(_TAG_SET))
