"""The best F1 that a text-only model can reach, for a known distribution of answers."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Candidate:
    """Items that a rule may predict for texts of one kind.

    Args:
        frequency: expected number of such items per record: the share of records with such a text, times the
            number of items of this kind that the rule could predict there.
        probability: the probability that such an item is annotated, given the text.
    """

    frequency: float
    probability: float


def text_only_ceiling(candidates: Iterable[Candidate]) -> float:
    """Return the maximum of ``2 E[TP] / (E[P] + E[G])`` over all rules that use only the text.

    A rule is a set S of candidates to predict. E[TP] and E[P] are sums over S, and E[G] is the sum of
    frequency x probability over all candidates, which must therefore include every item that can be annotated.
    The ratio is largest if S contains exactly the candidates with 2 x probability > ratio, so adding candidates in
    order of decreasing probability reaches the best rule.
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
