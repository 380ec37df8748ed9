"""Measures of events and their arguments: one function each. The first paragraph of a docstring defines the measure.

An event is identified by its type and its trigger span, which is None if only the image shows it; two events with the
same type and trigger are one. The measures called "by type" compare only the event's type, as the published protocol of
M2E2 does. Source: Li et al. 2020 (WASE), section 5.1: a textual argument is correct if its event type, offsets and role
match; a visual one if its event type, localization (IoU with the gold box) and role match; a multimedia event if its
type and its trigger offsets, or the image, match.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence

from umie.records import Box, Event, Record, Span
from umie.scoring.boxes import count_pairs, enclosing, same_place
from umie.scoring.counts import Counts, Key, Tally, merged, tally_groups, tally_repeated, tally_sets


def events_strict(predicted: Record, gold: Record) -> Tally:
    """Type and trigger offsets are equal; an event without a trigger matches only one without a trigger."""
    return tally_sets(_events(predicted), _events(gold))


def events_type(predicted: Record, gold: Record) -> Tally:
    """The type is equal, the trigger is ignored; two events of a type in a record need two predictions."""
    return tally_repeated(*(((name,) for name, _ in dict.fromkeys(_events(side))) for side in (predicted, gold)))


def events_trigger(predicted: Record, gold: Record) -> Tally:
    """The trigger offsets are equal, the type is ignored; events without a trigger are omitted."""
    return tally_sets(*((("", span) for _, span in _events(side) if span) for side in (predicted, gold)))


def events_textual(predicted: Record, gold: Record) -> Tally:
    """As strict, for events with a trigger."""
    return tally_sets(*((key for key in _events(side) if key[1]) for side in (predicted, gold)))


def events_visual(predicted: Record, gold: Record) -> Tally:
    """As strict, for events without a trigger, which only the image shows: the type is equal."""
    return tally_sets(*((key for key in _events(side) if not key[1]) for side in (predicted, gold)))


def events_multimedia(predicted: Record, gold: Record) -> Tally:
    """The type is equal, and so are the trigger offsets, or the prediction has no trigger.

    M2E2's rule for multimedia events, one to one: a predicted event without a trigger matches one gold event of its
    type that no other prediction matches.
    """
    tally: Tally = {}
    sides = [dict.fromkeys(_events(side)) for side in (predicted, gold)]
    for name in {name: None for side in sides for name, _ in side}:
        found, wanted = ([span for label, span in side if label == name] for side in sides)
        tally[name] = Counts(count_pairs(found, wanted, _same_or_visual), len(found), len(wanted))
    return tally


def arguments_strict(predicted: Record, gold: Record) -> Tally:
    """Textual and visual arguments together, visual ones as instances, under the same type and trigger."""
    return merged((arguments_textual(predicted, gold), arguments_instance(predicted, gold)))


def arguments_by_type(predicted: Record, gold: Record) -> Tally:
    """Textual and visual arguments together, visual ones as instances, under the same event type."""
    return merged((arguments_textual_by_type(predicted, gold), arguments_instance_by_type(predicted, gold)))


def arguments_textual(predicted: Record, gold: Record) -> Tally:
    """Role, offsets, event type and trigger are equal."""
    return tally_sets(*(_spans(side, _type_and_trigger) for side in (predicted, gold)))


def arguments_textual_by_type(predicted: Record, gold: Record) -> Tally:
    """Role, offsets and event type are equal."""
    return tally_sets(*(_spans(side, _type) for side in (predicted, gold)))


def arguments_instance(predicted: Record, gold: Record) -> Tally:
    """Each box of a role matches one gold box of the role at IoU >= 0.5, under the same type and trigger.

    One to one in the largest matching; each side uses its own regions. If a role has boxes of single participants as
    well as a box of all (a region labeled ``union``), only the former are used.
    """
    return _tally_instances(predicted, gold, _type_and_trigger)


def arguments_instance_by_type(predicted: Record, gold: Record) -> Tally:
    """As visual instance, under the same event type."""
    return _tally_instances(predicted, gold, _type)


def arguments_union(predicted: Record, gold: Record) -> Tally:
    """The box around all boxes of a role has IoU >= 0.5 with that of gold; each role of an event counts once.

    Under the same type and trigger. If a role has regions labeled ``union``, only these are enclosed.
    """
    return _tally_unions(predicted, gold, _type_and_trigger)


def arguments_union_by_type(predicted: Record, gold: Record) -> Tally:
    """As visual union, under the same event type."""
    return _tally_unions(predicted, gold, _type)


UNION = "union"  # the label that the M2E2 reader gives to a region around all participants of a role
_EventKey = Callable[[Event], Hashable]


def _type_and_trigger(event: Event) -> Hashable:
    return (event.type, event.trigger)


def _type(event: Event) -> Hashable:
    return event.type


def _role(group: tuple[str, Hashable]) -> str:
    return group[0]


def _events(record: Record) -> Iterator[Key]:
    return ((event.type, event.trigger) for event in record.events)


def _same_or_visual(found: Span | None, wanted: Span | None) -> bool:
    return found is None or found == wanted


def _spans(record: Record, key: _EventKey) -> Iterator[Key]:
    for event in record.events:
        for argument in event.arguments:
            if argument.span is not None:
                yield (argument.role, argument.span, key(event))


def _tally_instances(predicted: Record, gold: Record, key: _EventKey) -> Tally:
    """Compare boxes of single participants; a box of all is used if a role has no others."""
    sides = [_boxes(side, key, prefer_union=False) for side in (predicted, gold)]
    return tally_groups(sides[0], sides[1], _role, _count_instances)


def _tally_unions(predicted: Record, gold: Record, key: _EventKey) -> Tally:
    """Compare boxes of all participants; boxes of single ones are used if a role has none."""
    sides = [_boxes(side, key, prefer_union=True) for side in (predicted, gold)]
    return tally_groups(sides[0], sides[1], _role, _count_union)


def _boxes(record: Record, key: _EventKey, prefer_union: bool) -> dict[Hashable, list[Box]]:
    """Return the distinct boxes of each role of each event."""
    groups: dict[Hashable, dict[bool, dict[Box, None]]] = {}
    for event in record.events:
        for argument in event.arguments:
            if argument.region is not None:
                region = record.regions[argument.region]
                sorts = groups.setdefault((argument.role, key(event)), {})
                sorts.setdefault(region.label == UNION, {})[region.box] = None
    return {group: list(sorts.get(prefer_union) or sorts[not prefer_union]) for group, sorts in groups.items()}


def _count_instances(predicted: Sequence[Box], gold: Sequence[Box]) -> Counts:
    return Counts(count_pairs(predicted, gold, same_place), len(predicted), len(gold))


def _count_union(predicted: Sequence[Box], gold: Sequence[Box]) -> Counts:
    right = bool(predicted and gold) and same_place(enclosing(predicted), enclosing(gold))
    return Counts(int(right), int(bool(predicted)), int(bool(gold)))
