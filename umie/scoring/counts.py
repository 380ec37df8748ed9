"""Matches of one record, counted for each label."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias, TypeVar

from umie.scoring.boxes import count_pairs

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
    return tally_repeated(set(predicted), set(gold))


def tally_repeated(predicted: Iterable[Key], gold: Iterable[Key]) -> Tally:
    """Count equal keys with repetitions: each predicted key matches one equal gold key."""
    found, wanted = Counter(predicted), Counter(gold)
    tally: dict[str, list[int]] = {}
    for key in {**found, **wanted}:
        counts = tally.setdefault(key[0], [0, 0, 0])
        counts[0] += min(found[key], wanted[key])
        counts[1] += found[key]
        counts[2] += wanted[key]
    return {label: Counts(*counts) for label, counts in tally.items()}


def tally_groups(sides: Iterable[Iterable[tuple[Key, T]]], fits: Callable[[T, T], bool]) -> Tally:
    """Count items of the same group that fit, one to one in the largest matching.

    Args:
        sides: predicted and gold items with their groups, which begin with the label, such as boxes by role and event.
        fits: whether a predicted item matches a gold item.
    """
    found, wanted = map(_grouped, sides)
    tallies = []
    for group in {**found, **wanted}:
        items, gold = found.get(group, ()), wanted.get(group, ())
        tallies.append({group[0]: Counts(count_pairs(items, gold, fits), len(items), len(gold))})
    return merged(tallies)


def merged(tallies: Iterable[Tally]) -> Tally:
    """Return the sum of tallies, label by label."""
    total: Tally = {}
    for tally in tallies:
        for label, counts in tally.items():
            total[label] = Counts(*map(sum, zip(counts, total.get(label, (0, 0, 0)), strict=True)))
    return total


def _grouped(items: Iterable[tuple[Key, T]]) -> Mapping[Key, Sequence[T]]:
    groups: dict[Key, list[T]] = {}
    for group, item in items:
        groups.setdefault(group, []).append(item)
    return groups
