"""GMNER (Twitter10000 v2): tagged tweets as in Twitter-15, with boxes in Pascal VOC files.

Source: the files of NUSTM/GMNER, ``txt/`` as path and ``xml/`` as regions. The name of a box is the text of the entity
that it depicts.
"""

from __future__ import annotations

from umie.data import registry
from umie.data.tweets import TagSet, tweet_reader
from umie.data.twitter import LABELS

_TAG_SET = TagSet("GMNER", LABELS)

read = registry.register("gmner")(tweet_reader(_TAG_SET))
