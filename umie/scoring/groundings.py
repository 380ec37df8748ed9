"""Measures of entities with the regions that show them. The first line of a docstring defines the measure."""

from __future__ import annotations

from collections.abc import Iterator

from umie.records import Box, Record
from umie.scoring.boxes import count_pairs, same_place
from umie.scoring.counts import Key, Tally, tally_groups

Boxes = tuple[Box, ...]
NAMES = ("grounded", "GMNER", "EEG")  # of the measures, in umie.scoring.measures


def entities_grounded(predicted: Record, gold: Record) -> Tally:
    """Type and both offsets are equal, and so are the regions, one to one at IoU >= 0.5, or neither side has regions.

    Each side uses its own regions.
    """
    return tally_groups((_grounded(side, typed=True) for side in (predicted, gold)), _all_match)


def entities_gmner(predicted: Record, gold: Record) -> Tally:
    """As grounded, but the boxes of gold are alternatives: each predicted one must match any of them.

    Source: Yu et al., Grounded Multimodal Named Entity Recognition on Social Media (2023), Section 3.2, where a system
    predicts at most one box.
    """
    return tally_groups((_grounded(side, typed=True) for side in (predicted, gold)), _any_matches)


def entities_eeg(predicted: Record, gold: Record) -> Tally:
    """Entity extraction and grounding: as GMNER, but the type is ignored.

    Source: as for GMNER.
    """
    return tally_groups((_grounded(side, typed=False) for side in (predicted, gold)), _any_matches)


def has_groundings(record: Record) -> bool:
    """Return whether a region of the record shows one of its entities."""
    return any(entity.regions for entity in record.entities)


def _grounded(record: Record, *, typed: bool) -> Iterator[tuple[Key, Boxes]]:
    found: dict[tuple[Key, frozenset[Box]], Boxes] = {}
    for entity in record.entities:
        boxes = tuple(dict.fromkeys(record.regions[region].box for region in entity.regions))
        key = (entity.type if typed else "", entity.span)
        found.setdefault((key, frozenset(boxes)), boxes)
    return ((key, boxes) for (key, _), boxes in found.items())


def _all_match(predicted: Boxes, gold: Boxes) -> bool:
    return len(predicted) == len(gold) == count_pairs(predicted, gold, same_place)


def _any_matches(predicted: Boxes, gold: Boxes) -> bool:
    return bool(predicted) == bool(gold) and all(any(same_place(box, one) for one in gold) for box in predicted)
