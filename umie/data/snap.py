"""SNAP: tagged tweets in the form of Twitter-17, which was drawn from it.

Source: Lu et al. 2018, "Visual attention model for name tagging in multimodal social media": persons,
locations, organizations and miscellaneous. The set is handed out on request; as its users read it
(Multimodal-NER/RpBERT), it has a header ``IMGID:<id>`` and ``token<TAB>tag`` lines with BIO tags PER, LOC, ORG
and MISC. Copies that say OTHER, spell the type out (``B-person``) or write it in small letters are read alike.
"""

from __future__ import annotations

from umie.data import registry
from umie.data.conll import TagSet, tweet_reader
from umie.data.twitter import LABELS

_TAG_SET = TagSet("SNAP", {**LABELS, **{name.upper(): name for name in LABELS.values()}}, any_case=True)

read = registry.register("snap")(tweet_reader(_TAG_SET))
