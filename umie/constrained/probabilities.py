"""The probability of each item of a generated answer: the product over its tokens, renormalized under a constraint."""

from __future__ import annotations

import bisect
import math
from collections.abc import Callable, Sequence
from functools import partial

from torch import Tensor

from umie.constrained.constraint import Constraint

ReadItems = Callable[[int, list[int]], Sequence[object]]  # the items that the first tokens of a row spell


def item_probabilities(
    logits: Tensor, tokens: Tensor, read_items: ReadItems, end: int | None, constraint: Constraint | None = None
) -> list[list[float]]:
    """Return the probability of each item that each row spells, in order.

    The tokens of an item are those after the item before it; the tokens that end an answer belong to no item.

    Args:
        logits: ``[B, L, vocabulary]``, of the decoder that reads all tokens but the last.
        tokens: ``[B, L + 1]``, the generated rows, which begin with the decoder's start token.
        read_items: returns the items that the first tokens of a row spell, without the start token.
        end: the token that ends an answer.
        constraint: if given, probabilities are relative to the tokens that it admits at each step.
    """
    found = []
    for row, answer in enumerate(tokens[:, 1:].tolist()):
        length = answer.index(end) if end in answer else len(answer)
        steps = _log_probabilities(logits[row, :length], answer[:length], constraint, row)
        items = list(read_items(row, answer[:length]))
        probabilities, first = [], 0
        for number in range(1, len(items) + 1):
            lengths = range(first + 1, length + 1)
            # the fewest tokens that spell these items; in a style without closings, a longer span is another item
            has_items = partial(_spells, read_items, row, answer, items[:number])
            after = lengths[bisect.bisect_left(lengths, True, key=has_items)]
            total = sum(steps[first:after])  # above 0 only by rounding
            probabilities.append(0.0 if math.isnan(total) else math.exp(min(total, 0.0)))
            first = after
        found.append(probabilities)
    return found


def _spells(read_items: ReadItems, row: int, answer: list[int], items: list[object], length: int) -> bool:
    return list(read_items(row, answer[:length]))[: len(items)] == items


def _log_probabilities(logits: Tensor, answer: Sequence[int], constraint: Constraint | None, row: int) -> list[float]:
    """Return the log probability of each token of an answer, given the tokens before it; logits are ``[L, V]``."""
    logits = logits.float().cpu()
    if constraint is None:
        found: list[float] = logits.log_softmax(dim=1)[range(len(answer)), list(answer)].tolist()
        return found
    values: list[float] = []
    for step, allowed in zip(logits, constraint.allowed(row, answer), strict=True):
        values.append(float(step[answer[len(values)]] - step[list(allowed)].logsumexp(dim=0)))
    return values
