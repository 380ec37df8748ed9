"""Measures of named entities and relations: one function each. The first line of a docstring defines the measure."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from umie.records import NO_RELATION, Record, is_no_relation
from umie.scoring.boxes import overlap
from umie.scoring.counts import Key, Tally, tally_groups, tally_repeated, tally_sets

EVENT_KINDS = ("events", "arguments")


def entities_strict(predicted: Record, gold: Record) -> Tally:
    """Type and both offsets are equal. Each gold mention must be predicted; a repeated prediction counts once.

    Entities without a span, which only media show, have equal offsets: those of one type count once in a record, and
    ``grounded`` tells them apart.
    """
    return tally_sets(entity_keys(predicted), entity_keys(gold))


def entities_boundary(predicted: Record, gold: Record) -> Tally:
    """Both offsets are equal, the type is ignored; a span counts once on either side."""
    return tally_sets(*((("", span) for _, span in entity_keys(side) if span) for side in (predicted, gold)))


def entities_type(predicted: Record, gold: Record) -> Tally:
    """The type is equal and the spans share a character, one to one in the largest matching.

    Source: the `type` measure of SemEval-2013 task 9, restricted to one-to-one matches.
    """
    sides = ([((name,), span) for name, span in dict.fromkeys(entity_keys(side)) if span] for side in (predicted, gold))
    return tally_groups(sides, overlap)


def relations_strict(predicted: Record, gold: Record) -> Tally:
    """Type and the offsets of head and tail are equal, in this direction; ``none`` is not counted.

    Ends without a span have equal offsets, as entities without a span have.
    """
    return tally_sets(positive_keys(predicted), positive_keys(gold))


def relations_with_none(predicted: Record, gold: Record) -> Tally:
    """As strict, with ``none`` as a type like any other: an unrelated pair predicted as ``none`` is a true positive."""
    return tally_sets(relation_keys(predicted), relation_keys(gold))


def entity_keys(record: Record) -> Iterator[Key]:
    """Yield type and span of each entity."""
    return ((entity.type, entity.span) for entity in record.entities)


def relation_keys(record: Record) -> Iterator[Key]:
    """Yield type, head and tail of each relation; all names of ``none`` become one."""
    for relation in record.relations:
        name = NO_RELATION if is_no_relation(relation.type) else relation.type
        yield (name, relation.head, relation.tail)


def positive_keys(record: Record) -> Iterator[Key]:
    """Yield the keys of all relations except ``none``."""
    return (key for key in relation_keys(record) if key[0] != NO_RELATION)


def event_keys(record: Record) -> Iterator[Key]:
    """Yield type and trigger of each event."""
    return ((event.type, event.trigger) for event in record.events)


def argument_keys(record: Record) -> Iterator[Key]:
    """Yield role, span, event type and trigger of each textual argument."""
    for event in record.events:
        for argument in event.arguments:
            if argument.span is not None:
                yield (argument.role, argument.span, event.type, event.trigger)


def strings_of(kind: str, record: Record) -> list[Key]:
    """Return the items of a kind without their offsets: label first, then strings.

    Items with equal offsets count once; the same string at other offsets is repeated. Unrelated pairs, and entities,
    relations and arguments without a span, are omitted, as strings cannot express them.
    """
    keys = [key for key in dict.fromkeys(_KEYS[kind](record)) if kind in EVENT_KINDS or None not in key]
    return [tuple(record.surface(part) if isinstance(part, tuple) else part for part in key) for key in keys]


def tally_strings(predicted: Sequence[Key], gold: Record, kind: str) -> Tally:
    """Count equal labels and strings; a string that occurs twice in gold must be predicted twice."""
    return tally_repeated(predicted, strings_of(kind, gold))


_KEYS: dict[str, Callable[[Record], Iterator[Key]]] = {
    "entities": entity_keys,
    "relations": positive_keys,
    "events": event_keys,
    "arguments": argument_keys,
}
