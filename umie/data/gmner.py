"""GMNER (Twitter10000 v2): tweets tagged as in ``umie.data.twitter``, with boxes in Pascal-VOC files.

Source: the files of NUSTM/GMNER, ``txt/`` as path and ``xml/`` as regions. The name of a box is the text of
the entity that it shows.
"""

from __future__ import annotations

from umie.data import registry
from umie.data.twitter import read

registry.register("gmner")(read)

__all__ = ["read"]
