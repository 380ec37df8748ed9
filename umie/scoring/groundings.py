"""Measures of items with the places that show them. The first paragraph of a docstring defines the measure.

Every place of a side is one of its own record, so a system can use its own detector. Items with equal offsets, or
without a span, are different if their places are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from umie.records import MEDIA, Box, Places, Record, is_no_relation
from umie.records.overlap import Place, extent, same_place
from umie.scoring.boxes import count_pairs, same_box
from umie.scoring.counts import Key, Tally, tally_groups

Shown = tuple[tuple[Place, ...], ...]  # the places of each part of an item: of a relation, those of head and of tail
Boxes = tuple[tuple[int, Box], ...]  # with the number of the image of each
NAMES = ("grounded", "GMNER", "EEG", "pointing")  # of the measures, in umie.scoring.measures


def entities_grounded(predicted: Record, gold: Record) -> Tally:
    """As strict, and the places are right: they match those of gold one to one at IoU >= 0.5, or neither side has any.

    The places of all media: regions, tracks and segments. Entities without a span are matched by type and places, one
    to one in the largest matching.
    """
    return _tally(_entities, predicted, gold)


def relations_grounded(predicted: Record, gold: Record) -> Tally:
    """As strict, and the places of the head and those of the tail are right, as for grounded entities.

    Of an end without a span, a query names the places, so they are only wrong if another pair was asked about.
    """
    return _tally(_relations, predicted, gold)


def events_grounded(predicted: Record, gold: Record) -> Tally:
    """As strict, and the places of the trigger are right, as for grounded entities."""
    return _tally(_events, predicted, gold)


def arguments_grounded(predicted: Record, gold: Record) -> Tally:
    """Role, offsets, event type and trigger are equal, and the places are right, as for grounded entities.

    An argument without a span is one item, however many places it has. The places of the event are not compared.
    """
    return _tally(_arguments, predicted, gold)


def entities_gmner(predicted: Record, gold: Record) -> Tally:
    """As strict, and each predicted box matches any box of gold, or neither side has regions.

    Of a grounded entity, only boxes of regions are compared. Source: Yu et al., Grounded Multimodal Named Entity
    Recognition on Social Media (2023), Section 3.2, where a system predicts at most one box.
    """
    return tally_groups((_boxed(side, typed=True) for side in (predicted, gold)), _any_matches)


def entities_eeg(predicted: Record, gold: Record) -> Tally:
    """Entity extraction and grounding: as GMNER, but the type is ignored.

    Source: as for GMNER.
    """
    return tally_groups((_boxed(side, typed=False) for side in (predicted, gold)), _any_matches)


def entities_pointing(predicted: Record, gold: Record) -> Tally:
    """Of the mentions in the text that have places and are found with their type, those whose places are right.

    This is an accuracy: mentions that are missed or invented do not count.
    """
    wanted = {key for key, (places,) in _entities(gold) if any(places) and key[1] is not None}
    wanted &= {key for key, _ in _entities(predicted)}
    return _tally(lambda side: (item for item in _entities(side) if item[0] in wanted), predicted, gold)


def has_regions(record: Record) -> bool:
    """Return whether a region of the record shows one of its entities."""
    return any(entity.regions for entity in record.entities)


def has_places(kind: str) -> Callable[[Record], bool]:
    """Return the function that says whether a record has places that show an item of a kind of task."""
    return lambda record: any(any(places) for _, places in items_of(kind)(record))


def has_grounded_arguments(record: Record) -> bool:
    """Return whether an argument has more than a span or one region; for these, ``strict`` compares all."""
    arguments = (argument for event in record.events for argument in event.arguments)
    return any(
        argument.places and (argument.span, len(argument.regions), *argument.places[1:]) != (None, 1, (), ())
        for argument in arguments
    )


_Items = Iterator[tuple[Key, tuple[Places, ...]]]


def _entities(record: Record) -> _Items:
    return (((entity.type, entity.span), (entity.places,)) for entity in record.entities)


def _relations(record: Record) -> _Items:
    for item in record.relations:
        if not is_no_relation(item.type):
            yield (item.type, item.head, item.tail), (item.head_places, item.tail_places)


def _events(record: Record) -> _Items:
    return (((event.type, event.trigger), (event.places,)) for event in record.events)


def _arguments(record: Record) -> _Items:
    for event in record.events:
        for item in event.arguments:
            yield (item.role, item.span, event.type, event.trigger), (item.places,)


_ITEMS: dict[str, Callable[[Record], _Items]] = {
    "entities": _entities,
    "relations": _relations,
    "events": _events,
    "arguments": _arguments,
}
KINDS = tuple(_ITEMS)
"""The kinds of tasks whose items places can show."""


def items_of(kind: str) -> Callable[[Record], _Items]:
    """Return the function that yields the items of a kind of task: what tells them apart, and the places of each part.

    What tells items apart begins with the label; offsets, where an item has them, follow. Pairs labeled ``none`` are no
    items.
    """
    return _ITEMS[kind]


def _tally(items: Callable[[Record], _Items], predicted: Record, gold: Record) -> Tally:
    return tally_groups((_distinct(side, items(side)) for side in (predicted, gold)), _all_match)


def _distinct(record: Record, items: _Items) -> Iterable[tuple[Key, Shown]]:
    """Return the items, with the distinct places of each part; an item that is repeated with its places is one."""
    found: dict[object, tuple[Key, Shown]] = {}
    for key, parts in items:
        shown = [
            {extent(place): place for place in (record.places(medium)[index] for index in part.of(medium))}
            for part in parts
            for medium in MEDIA
        ]
        identity = (key, *(frozenset(own) for own in shown))
        found.setdefault(identity, (key, tuple(tuple(own.values()) for own in shown)))
    return found.values()


def _all_match(predicted: Shown, gold: Shown) -> bool:
    return all(
        len(found) == len(wanted) == count_pairs(found, wanted, same_place)
        for found, wanted in zip(predicted, gold, strict=True)
    )


def _boxed(record: Record, *, typed: bool) -> Iterator[tuple[Key, Boxes]]:
    found: dict[tuple[Key, frozenset[tuple[int, Box]]], Boxes] = {}
    for entity in record.entities:
        regions = (record.regions[index] for index in entity.regions)
        boxes = tuple(dict.fromkeys((region.image, region.box) for region in regions))
        key = (entity.type if typed else "", entity.span)
        found.setdefault((key, frozenset(boxes)), boxes)
    return ((key, boxes) for (key, _), boxes in found.items())


def _any_matches(predicted: Boxes, gold: Boxes) -> bool:
    return bool(predicted) == bool(gold) and all(
        any(image == other and same_box(box, one) for other, one in gold) for image, box in predicted
    )
