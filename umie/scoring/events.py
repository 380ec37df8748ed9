"""Measures of events and their arguments: one function each. The first paragraph of a docstring defines the measure.

An event is identified by its type and its trigger span, which is None if only media show it; two events with the same
type and trigger are one, wherever they are seen or heard. An argument with a span is textual, even if places show it,
too: those are judged by ``grounded``. The measures called "by type" compare only the event's type, as the published
protocol of M2E2 does. Source: Li et al. 2020 (WASE), section 5.1: a textual argument is correct if its event type,
offsets and role match; a visual one if its event type, localization (IoU with the gold box) and role match; a
multimedia event if its type and its trigger offsets, or the image, match.
"""

from __future__ import annotations

from collections.abc import Iterator

from umie.records import Argument, Box, Record
from umie.records.overlap import Place, extent, same_place
from umie.scoring.boxes import enclosing, same_box
from umie.scoring.counts import Key, Tally, merged, tally_groups, tally_repeated, tally_sets
from umie.scoring.mentions import argument_keys, event_keys

UNION = "union"  # the label that the M2E2 reader gives to a region around all participants of a role


def events_strict(predicted: Record, gold: Record) -> Tally:
    """Type and trigger offsets are equal; an event without a trigger matches only one without a trigger."""
    return tally_sets(event_keys(predicted), event_keys(gold))


def events_type(predicted: Record, gold: Record) -> Tally:
    """The type is equal, the trigger is ignored; two events of a type in a record need two predictions."""
    return tally_repeated(*(((name,) for name, _ in dict.fromkeys(event_keys(side))) for side in (predicted, gold)))


def events_trigger(predicted: Record, gold: Record) -> Tally:
    """The trigger offsets are equal, the type is ignored; events without a trigger are omitted."""
    return tally_sets(*((("", span) for _, span in event_keys(side) if span) for side in (predicted, gold)))


def events_textual(predicted: Record, gold: Record) -> Tally:
    """As strict, for events with a trigger."""
    return tally_sets(*((key for key in event_keys(side) if key[1]) for side in (predicted, gold)))


def events_visual(predicted: Record, gold: Record) -> Tally:
    """As strict, for events without a trigger, which only media show: the type is equal."""
    return tally_sets(*((key for key in event_keys(side) if not key[1]) for side in (predicted, gold)))


def events_multimedia(predicted: Record, gold: Record) -> Tally:
    """The type is equal, and so are the trigger offsets, or the prediction has no trigger.

    M2E2's rule for multimedia events, one to one: a predicted event without a trigger matches one gold event of its
    type that no other prediction matches.
    """
    sides = ([((name,), span) for name, span in dict.fromkeys(event_keys(side))] for side in (predicted, gold))
    return tally_groups(sides, lambda found, wanted: found is None or found == wanted)


def arguments_strict(predicted: Record, gold: Record) -> Tally:
    """Textual arguments, and those without a span as instances of their places, under the same type and trigger.

    Of the latter, each box matches as in visual instance, and each track and each segment of a role matches one of gold
    at IoU >= 0.5.
    """
    return merged((arguments_textual(predicted, gold), _tally_unwritten(predicted, gold, by_type=False)))


def arguments_by_type(predicted: Record, gold: Record) -> Tally:
    """As strict, under the same event type."""
    return merged((arguments_textual_by_type(predicted, gold), _tally_unwritten(predicted, gold, by_type=True)))


def arguments_textual(predicted: Record, gold: Record) -> Tally:
    """Role, offsets, event type and trigger are equal."""
    return tally_sets(argument_keys(predicted), argument_keys(gold))


def arguments_textual_by_type(predicted: Record, gold: Record) -> Tally:
    """Role, offsets and event type are equal."""
    return tally_sets(*((key[:3] for key in argument_keys(side)) for side in (predicted, gold)))


def arguments_instance(predicted: Record, gold: Record) -> Tally:
    """Each box of a role matches one gold box of the role at IoU >= 0.5, under the same type and trigger.

    One to one in the largest matching; each side uses its own regions, also those of arguments with a span. If a role
    has boxes of single participants as well as a box of all (a region labeled ``union``), only the former are used.
    """
    return _tally_boxes(predicted, gold, by_type=False, union=False)


def arguments_instance_by_type(predicted: Record, gold: Record) -> Tally:
    """As visual instance, under the same event type."""
    return _tally_boxes(predicted, gold, by_type=True, union=False)


def arguments_union(predicted: Record, gold: Record) -> Tally:
    """The box around all boxes of a role has IoU >= 0.5 with that of gold; each role of an event counts once.

    Under the same type and trigger, in each image by itself. If a role has regions labeled ``union``, only these are
    enclosed.
    """
    return _tally_boxes(predicted, gold, by_type=False, union=True)


def arguments_union_by_type(predicted: Record, gold: Record) -> Tally:
    """As visual union, under the same event type."""
    return _tally_boxes(predicted, gold, by_type=True, union=True)


def _tally_boxes(predicted: Record, gold: Record, *, by_type: bool, union: bool, only_unwritten: bool = False) -> Tally:
    """Compare the boxes of single participants, or the boxes of all; the other kind is used if a role has no box.

    ``only_unwritten`` leaves out arguments with a span.
    """
    return tally_groups((_boxes(side, by_type, union, only_unwritten) for side in (predicted, gold)), same_box)


def _tally_unwritten(predicted: Record, gold: Record, *, by_type: bool) -> Tally:
    """Compare the places of arguments without a span, one by one."""
    boxes = _tally_boxes(predicted, gold, by_type=by_type, union=False, only_unwritten=True)
    others = tally_groups((_tracks_and_segments(side, by_type) for side in (predicted, gold)), same_place)
    return merged((boxes, others))


def _arguments(record: Record, by_type: bool) -> Iterator[tuple[Key, Argument]]:
    for event in record.events:
        for argument in event.arguments:
            yield (argument.role, event.type, None if by_type else event.trigger), argument


def _tracks_and_segments(record: Record, by_type: bool) -> Iterator[tuple[Key, Place]]:
    """Yield the distinct tracks and segments of arguments without a span."""
    found: dict[object, tuple[Key, Place]] = {}
    for role, argument in _arguments(record, by_type):
        if argument.span is None:
            shown: list[Place] = [record.tracks[index] for index in argument.tracks]
            shown += [record.segments[index] for index in argument.segments]
            for place in shown:
                found.setdefault((role, extent(place)), (role, place))
    yield from found.values()


def _boxes(record: Record, by_type: bool, union: bool, only_unwritten: bool) -> list[tuple[Key, Box]]:
    """Return the distinct boxes of each role of each event in each image, or the box around them."""
    roles: dict[Key, dict[bool, dict[Box, None]]] = {}
    for role, argument in _arguments(record, by_type):
        for index in () if only_unwritten and argument.span is not None else argument.regions:
            region = record.regions[index]
            roles.setdefault((*role, region.image), {}).setdefault(region.label == UNION, {})[region.box] = None
    found = {role: list(kinds.get(union) or kinds[not union]) for role, kinds in roles.items()}
    return [(role, box) for role, boxes in found.items() for box in ([enclosing(boxes)] if union else boxes)]
