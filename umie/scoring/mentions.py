"""Measures of named entities and relations: one function each. The first line of a docstring defines the measure."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence

from umie.records import NO_RELATION, Record, Span
from umie.scoring.boxes import count_pairs, overlap
from umie.scoring.counts import Counts, Key, Tally, tally_groups, tally_repeated, tally_sets


def entities_strict(predicted: Record, gold: Record) -> Tally:
    """Type and both offsets are equal. Each gold mention must be predicted; a repeated prediction counts once."""
    return tally_sets(*(((entity.type, entity.span) for entity in side.entities) for side in (predicted, gold)))


def entities_boundary(predicted: Record, gold: Record) -> Tally:
    """Both offsets are equal, the type is ignored; a span counts once on either side."""
    return tally_sets(*((("", entity.span) for entity in side.entities) for side in (predicted, gold)))


def entities_type(predicted: Record, gold: Record) -> Tally:
    """The type is equal and the spans share a character, one to one in the largest matching.

    Source: the `type` measure of SemEval-2013 task 9, restricted to one-to-one matches.
    """

    def spans(record: Record) -> dict[Hashable, list[Span]]:
        groups: dict[Hashable, list[Span]] = {}
        for entity in dict.fromkeys(record.entities):
            groups.setdefault(entity.type, []).append(entity.span)
        return groups

    return tally_groups(spans(predicted), spans(gold), str, _count_overlaps)


def relations_strict(predicted: Record, gold: Record) -> Tally:
    """Type and the offsets of head and tail are equal, in this direction; ``none`` is not counted."""
    return tally_sets(*(filter(is_positive, relation_keys(side)) for side in (predicted, gold)))


def relations_with_none(predicted: Record, gold: Record) -> Tally:
    """As strict, with ``none`` as a type like any other: an unrelated pair predicted as ``none`` is a true positive."""
    return tally_sets(relation_keys(predicted), relation_keys(gold))


def relation_keys(record: Record) -> Iterator[Key]:
    """Yield type, head and tail of each relation; all spellings of ``none`` become one."""
    for relation in record.relations:
        name = NO_RELATION if relation.type.lower() == NO_RELATION else relation.type
        yield (name, relation.head, relation.tail)


def is_positive(key: Key) -> bool:
    """Return whether the key of a relation is not ``none``."""
    return bool(key[0] != NO_RELATION)


def strings_of(kind: str, record: Record) -> list[Key]:
    """Return the items of a kind without their offsets: label first, then strings.

    Items with equal offsets count once; the same string at other offsets is repeated. Unrelated pairs and visual
    arguments are omitted, as strings cannot express them.
    """
    return _STRINGS[kind](record)


def tally_strings(predicted: Sequence[Key], gold: Record, kind: str) -> Tally:
    """Count equal labels and strings; a string that occurs twice in gold must be predicted twice."""
    return tally_repeated(predicted, strings_of(kind, gold))


def _count_overlaps(predicted: Sequence[Span], gold: Sequence[Span]) -> Counts:
    return Counts(count_pairs(predicted, gold, overlap), len(predicted), len(gold))


def _entity_strings(record: Record) -> list[Key]:
    return [(entity.type, entity.text) for entity in dict.fromkeys(record.entities)]


def _relation_strings(record: Record) -> list[Key]:
    return [
        (name, record.surface(head), record.surface(tail))
        for name, head, tail in dict.fromkeys(filter(is_positive, relation_keys(record)))
    ]


def _event_strings(record: Record) -> list[Key]:
    triggers = dict.fromkeys((event.type, event.trigger) for event in record.events)
    return [(name, trigger and record.surface(trigger)) for name, trigger in triggers]


def _argument_strings(record: Record) -> list[Key]:
    keys = dict.fromkeys(
        (argument.role, argument.span, event.type, event.trigger)
        for event in record.events
        for argument in event.arguments
        if argument.span is not None
    )
    return [
        (role, record.surface(span), name, trigger and record.surface(trigger)) for role, span, name, trigger in keys
    ]


_STRINGS: dict[str, Callable[[Record], list[Key]]] = {
    "entities": _entity_strings,
    "relations": _relation_strings,
    "events": _event_strings,
    "arguments": _argument_strings,
}
