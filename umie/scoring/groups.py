"""Groups of records that are scored together, besides all of them."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

from umie.errors import check_keys
from umie.records import Record
from umie.scoring.groundings import KINDS, items_of
from umie.scoring.mentions import EVENT_KINDS
from umie.tasks import registry

MODALITIES = ("text-only", "image-only", "multimedia")
COMBINATIONS = tuple("+".join(some) for size in range(1, 5) for some in combinations("TIAV", size))
"""The combinations of text and media that a record can have; see ``Record.combination``."""
SIZES = ("no items", "1 item", "2 items", "3 items", "4 or more items")
ALIGNMENTS = ("aligned", "unaligned")
GROUPINGS = {
    "combination": "combination of media",
    "items": "number of annotated items",
    "alignment": "whether text and media show the same items",
}
"""What records can be grouped by, with titles."""


def check_grouping(name: str) -> None:
    """Raise UmieError unless records can be grouped by this."""
    check_keys("grouping", [name], GROUPINGS)


def groups_of(task: str, records: Sequence[Record], grouping: str) -> tuple[list[str | None], Sequence[str]]:
    """Return the group of each annotated record for a task (None: none), and the names of the groups in order.

    - ``combination``: the text and media of the record; of events with no other media than images, M2E2's modality.
    - ``items``: the number of annotated items of the task, e.g. of entities, as in Figure 9 of REAMO (2024).
    - ``alignment``: ``aligned`` if every item (of a relation, head and tail; of an event, the trigger, and places of
      the event or its arguments) has offsets in the text and a place in a medium, otherwise ``unaligned``. Records
      without text, media or items are in neither.
    """
    built = registry.build(task)
    kind = built.kind
    if grouping == "items":
        count = items_of(kind) if kind in KINDS else built.items
        return [SIZES[min(len(list(count(record))), 4)] for record in records], SIZES
    if grouping == "alignment":
        return [_alignment(record, kind) if kind in KINDS else None for record in records], ALIGNMENTS
    modalities: list[str | None] = [modality_of(record) for record in records]
    if kind in EVENT_KINDS and set(modalities) <= {*MODALITIES}:
        return modalities, MODALITIES
    return [record.combination for record in records], COMBINATIONS


def modality_of(record: Record) -> str:
    """Return the modality of M2E2 that a record belongs to, by whether it has a text, an image, or both.

    It does not depend on the system, so that all systems are scored on the same items. Source: M2E2 is scored on
    sentences, on images, and on pairs of both that show one event. A record with a sound or a video belongs to none of
    them, and to its combination, such as ``T+A``.
    """
    combination = record.combination
    return dict(zip(("T", "I", "T+I"), MODALITIES, strict=True)).get(combination, combination)


def _alignment(record: Record, kind: str) -> str | None:
    if kind == "events":
        parts = [
            (event.trigger is not None, any(event.places) or any(any(one.places) for one in event.arguments))
            for event in record.events
        ]
    else:
        parts = [
            (span is not None, any(places))
            for key, shown in items_of(kind)(record)
            for span, places in zip(key[1 : 1 + len(shown)], shown, strict=True)
        ]
    if not parts or not record.media or not record.text.strip():
        return None
    return ALIGNMENTS[0] if all(told and seen for told, seen in parts) else ALIGNMENTS[1]
