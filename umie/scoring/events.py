"""What counts as right in events and their arguments: one function for each measure.

An event is known by its type and its trigger span, which is None where only the image shows it; two events
alike in both are one. The measures called "by type" take the event's type alone, as the published protocol of
M2E2 does. Source: Li et al. 2020 (WASE), section 5.1: a textual argument is right if its event type, offsets
and role match; a visual one if its event type, localization and role match, localized meaning IoU with the
gold box; a multimedia event if its type and its trigger offsets, or the image, match.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence

from umie.records import Box, Event, Record, Span
from umie.scoring.boxes import count_pairs, enclosing, same_place
from umie.scoring.counts import Counts, Key, Tally, merged, tally_groups, tally_repeated, tally_sets


def events_strict(predicted: Record, gold: Record) -> Tally:
    """Type and trigger offsets are equal; an event of the image, without a trigger, has to match as such."""
    return tally_sets(_events(predicted), _events(gold))


def events_type(predicted: Record, gold: Record) -> Tally:
    """The type is equal, whatever the trigger; two events of a type in a record need two predictions."""
    return tally_repeated(*(((name,) for name, _ in dict.fromkeys(_events(side))) for side in (predicted, gold)))


def events_trigger(predicted: Record, gold: Record) -> Tally:
    """The trigger offsets are equal, whatever the type; events without a trigger are left out."""
    return tally_sets(*((("", span) for _, span in _events(side) if span) for side in (predicted, gold)))


def events_textual(predicted: Record, gold: Record) -> Tally:
    """As strict, over the events that have a trigger."""
    return tally_sets(*((key for key in _events(side) if key[1]) for side in (predicted, gold)))


def events_visual(predicted: Record, gold: Record) -> Tally:
    """As strict, over the events without a trigger, which the image shows: the type is equal."""
    return tally_sets(*((key for key in _events(side) if not key[1]) for side in (predicted, gold)))


def events_multimedia(predicted: Record, gold: Record) -> Tally:
    """The type is equal, and the trigger offsets are, or the prediction rests on the image alone.

    M2E2's rule for multimedia events, one to one: a predicted event without a trigger answers one gold event
    of its type that no trigger has answered.
    """
    tally: Tally = {}
    sides = [dict.fromkeys(_events(side)) for side in (predicted, gold)]
    for name in {name: None for side in sides for name, _ in side}:
        found, wanted = ([span for label, span in side if label == name] for side in sides)
        tally[name] = Counts(count_pairs(found, wanted, _same_or_visual), len(found), len(wanted))
    return tally


def arguments_strict(predicted: Record, gold: Record) -> Tally:
    """Textual and visual arguments together, the visual ones in the instance form, under type and trigger."""
    return merged((arguments_textual(predicted, gold), arguments_instance(predicted, gold)))


def arguments_by_type(predicted: Record, gold: Record) -> Tally:
    """Textual and visual arguments together, the visual ones in the instance form, under the event's type."""
    return merged((arguments_textual_by_type(predicted, gold), arguments_instance_by_type(predicted, gold)))


def arguments_textual(predicted: Record, gold: Record) -> Tally:
    """Role, offsets, event type and trigger are equal."""
    return tally_sets(*(_spans(side, _type_and_trigger) for side in (predicted, gold)))


def arguments_textual_by_type(predicted: Record, gold: Record) -> Tally:
    """Role, offsets and event type are equal."""
    return tally_sets(*(_spans(side, _type) for side in (predicted, gold)))


def arguments_instance(predicted: Record, gold: Record) -> Tally:
    """Each box of a role answers one gold box of the role at IoU >= 0.5, under the same type and trigger.

    One to one in the largest matching; the boxes are those of either side's own regions. Of a role that has boxes
    of single participants and one of all (a region labeled ``union``), the latter is left to the union form.
    """
    return _tally_instances(predicted, gold, _type_and_trigger)


def arguments_instance_by_type(predicted: Record, gold: Record) -> Tally:
    """As the instance form, under the same event type."""
    return _tally_instances(predicted, gold, _type)


def arguments_union(predicted: Record, gold: Record) -> Tally:
    """The box around all boxes of a role has IoU >= 0.5 with the one around gold's; an event's role counts once.

    Under the same type and trigger. Where a role has regions labeled ``union``, they are what is enclosed.
    """
    return _tally_unions(predicted, gold, _type_and_trigger)


def arguments_union_by_type(predicted: Record, gold: Record) -> Tally:
    """As the union form, under the same event type."""
    return _tally_unions(predicted, gold, _type)


UNION = "union"  # the label of a region around all participants of a role, as the reader of M2E2 gives it
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
    """Compare boxes of single participants; one of all stands in where a role has no others."""
    sides = [_boxes(side, key, prefer_union=False) for side in (predicted, gold)]
    return tally_groups(sides[0], sides[1], _role, _count_instances)


def _tally_unions(predicted: Record, gold: Record, key: _EventKey) -> Tally:
    """Compare boxes of all participants; those of single ones stand in where a role has none."""
    sides = [_boxes(side, key, prefer_union=True) for side in (predicted, gold)]
    return tally_groups(sides[0], sides[1], _role, _count_union)


def _boxes(record: Record, key: _EventKey, prefer_union: bool) -> dict[Hashable, list[Box]]:
    """Return the distinct boxes of each role of each event; regions with the same box are one."""
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
