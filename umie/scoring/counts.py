"""Matches of one record, counted for each label."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias, TypeVar

T = TypeVar("T")


class Counts(NamedTuple):
    """Counts of one record: correct, predicted and annotated items."""

    true_positives: int
    predicted: int
    gold: int


Tally: TypeAlias = dict[str, Counts]
"""Counts of one record by label; a measure without labels uses the key ``""``."""

Key: TypeAlias = tuple[Any, ...]
"""The values that must be equal for two items to match, the label first."""


def tally_sets(predicted: Iterable[Key], gold: Iterable[Key]) -> Tally:
    """Count equal keys; a key that is repeated on one side counts once."""
    found, wanted = set(predicted), set(gold)
    tally: dict[str, list[int]] = {}
    for key in found:
        counts = tally.setdefault(key[0], [0, 0, 0])
        counts[0] += key in wanted
        counts[1] += 1
    for key in wanted:
        tally.setdefault(key[0], [0, 0, 0])[2] += 1
    return {label: Counts(*counts) for label, counts in tally.items()}


def tally_repeated(predicted: Iterable[Key], gold: Iterable[Key]) -> Tally:
    """Count equal keys with repetitions: each predicted key matches one equal gold key."""
    found, wanted = _by_label(predicted), _by_label(gold)
    return {label: _count_repeated(found.get(label, ()), wanted.get(label, ())) for label in {**found, **wanted}}


def tally_groups(
    predicted: Mapping[Hashable, Sequence[T]],
    gold: Mapping[Hashable, Sequence[T]],
    label: Callable[[Any], str],
    count: Callable[[Sequence[T], Sequence[T]], Counts],
) -> Tally:
    """Count within groups; items of different groups never match.

    Args:
        predicted: items by group, such as boxes by event and role.
        gold: annotated items by group.
        label: the label of a group.
        count: counts the items of one group.
    """
    tally: Tally = {}
    for group in {**predicted, **gold}:
        counts = count(predicted.get(group, ()), gold.get(group, ()))
        before = tally.get(label(group), Counts(0, 0, 0))
        tally[label(group)] = Counts(*(old + new for old, new in zip(before, counts, strict=True)))
    return tally


def merged(tallies: Iterable[Tally]) -> Tally:
    """Return the sum of tallies, label by label."""
    total: Tally = {}
    for tally in tallies:
        for label, counts in tally.items():
            before = total.get(label, Counts(0, 0, 0))
            total[label] = Counts(*(old + new for old, new in zip(before, counts, strict=True)))
    return total


def _count_repeated(predicted: Iterable[Hashable], gold: Iterable[Hashable]) -> Counts:
    found, wanted = Counter(predicted), Counter(gold)
    return Counts((found & wanted).total(), found.total(), wanted.total())


def _by_label(keys: Iterable[Key]) -> dict[str, list[Key]]:
    groups: dict[str, list[Key]] = {}
    for key in keys:
        groups.setdefault(key[0], []).append(key)
    return groups
