"""The best score that a rule can reach which sees only the text, for a known distribution of answers."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Candidate:
    """Items that a rule may predict when it sees texts of one sort.

    Args:
        frequency: expected number of such items per record: the share of records with such a text, times how
            many items of this sort the rule could name there.
        probability: that such an item is annotated, given all that the text says.
    """

    frequency: float
    probability: float


def text_only_ceiling(candidates: Iterable[Candidate]) -> float:
    """Return the largest ``2 E[TP] / (E[P] + E[G])`` over all rules that see only the text.

    A rule is a set S of candidates to predict. E[TP] and E[P] are sums over S, and E[G] is the sum of
    frequency x probability over all candidates, which must therefore list every item that can be annotated.
    The ratio is largest where S holds exactly the candidates with 2 x probability > ratio, so adding them by
    falling probability passes through the best rule.
    """
    ranked = sorted(candidates, key=lambda candidate: -candidate.probability)
    gold = sum(candidate.frequency * candidate.probability for candidate in ranked)
    best = true_positives = predicted = 0.0
    for candidate in ranked:
        true_positives += candidate.frequency * candidate.probability
        predicted += candidate.frequency
        if predicted + gold:
            best = max(best, 2 * true_positives / (predicted + gold))
    return best
