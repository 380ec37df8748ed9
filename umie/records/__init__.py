"""Records: a text with media and their annotation, and their JSONL form (one record per line).

Spans are character offsets ``(start, end)`` into the text, end exclusive. Boxes are ``(x1, y1, x2, y2)`` relative to
the size of the image, 0..1, with the origin at the top left. Indices of places count from 0; answers number places from
1, so ``O1`` refers to ``regions[0]``, ``V1`` to ``tracks[0]`` and ``S1`` to ``segments[0]``.
"""

from umie.records.jsonl import read_jsonl, read_numbered_jsonl, record_from_json, record_to_json, write_jsonl
from umie.records.model import (
    NO_RELATION,
    Argument,
    Entity,
    Event,
    Record,
    Relation,
    Span,
)
from umie.records.no_relation import is_no_relation, no_relation_names
from umie.records.places import MEDIA, Box, Mask, Medium, Places, Region, Segment, Track

__all__ = [
    "MEDIA",
    "NO_RELATION",
    "Argument",
    "Box",
    "Entity",
    "Event",
    "Mask",
    "Medium",
    "Places",
    "Record",
    "Region",
    "Relation",
    "Segment",
    "Span",
    "Track",
    "is_no_relation",
    "no_relation_names",
    "read_jsonl",
    "read_numbered_jsonl",
    "record_from_json",
    "record_to_json",
    "write_jsonl",
]
