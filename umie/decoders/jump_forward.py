"""Jump-forward decoding: tokens that a constraint leaves no choice about are taken in with the next ones.

Where only one token may come, no step of the decoder is needed to choose it. Source: Zheng et al., SGLang (2024),
Section 4, there over strings; here over tokens, so that the output is that of greedy decoding, token for token.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor


class AnswerAutomaton(Protocol):
    """What may be answered to one query; see ``umie.constrained``."""

    @property
    def start(self) -> Any:
        """The state before the first token."""

    @property
    def end(self) -> int:
        """The token that ends an answer."""

    def tokens(self, state: Any, remaining: int) -> Sequence[int]:
        """Return the tokens that may come next when so many may still come."""

    def next(self, state: Any, token: int) -> Any:
        """Return the state behind a token."""


class Steps(Protocol):
    """A decoder whose rows take in different numbers of tokens."""

    def feed(self, tokens: Sequence[Sequence[int]], candidates: Tensor | None = None) -> Tensor:
        """Take in some tokens, or none, for each row; return the logits behind the last of each that got any."""

    def keep(self, rows: Sequence[int]) -> None:
        """Go on with some of the rows only."""


class _Row:
    def __init__(self, automaton: AnswerAutomaton, first: int) -> None:
        self.automaton = automaton
        self.state = automaton.start
        self.tokens = [first]
        self.num_fed = 0
        self.allowed: Sequence[int] = ()


def generate(
    steps: Steps, automata: Sequence[AnswerAutomaton], start: int, pad: int, max_new_tokens: int, *, jump: bool = True
) -> Tensor:
    """Decode greedily under a constraint.

    Args:
        steps: the decoder, with nothing taken in yet.
        automata: the constraint on each row.
        start: the token that the decoder begins with.
        pad: stands behind the end of shorter rows.
        max_new_tokens: as for transformers' ``generate``.
        jump: whether to skip the steps that have no choice; False is the plain twin.

    Returns:
        Token ids ``[B, L]``, the start token included, as transformers' ``generate`` gives them.
    """
    rows = [_Row(automaton, start) for automaton in automata]
    active = [row for row in rows if not _advance(row, max_new_tokens, jump)]
    kept = list(rows)
    while active:
        if len(active) <= 0.5 * len(kept):  # a finished row costs a little of the attention, leaving it out a copy
            steps.keep([index for index, row in enumerate(kept) if row in active])
            kept = active
        fed = [row.tokens[row.num_fed :] if row in active else [] for row in kept]
        for row, token in zip(active, _best(steps, fed, active), strict=True):
            row.num_fed = len(row.tokens)
            row.tokens.append(token)
            row.state = row.automaton.next(row.state, token)
        active = [
            row for row in active if row.tokens[-1] != row.automaton.end and not _advance(row, max_new_tokens, jump)
        ]
    longest = max(len(row.tokens) for row in rows)
    return torch.tensor([[*row.tokens, *[pad] * (longest - len(row.tokens))] for row in rows])


def _advance(row: _Row, max_new_tokens: int, jump: bool) -> bool:
    """Add the tokens that alone may come; say whether the answer ended with them."""
    while True:
        remaining = max_new_tokens - len(row.tokens) + 1
        if remaining <= 0:
            return True
        row.allowed = row.automaton.tokens(row.state, remaining)
        if len(row.allowed) > 1 or not jump:
            return False
        token = row.allowed[0]
        row.tokens.append(token)
        if token == row.automaton.end:
            return True
        row.state = row.automaton.next(row.state, token)


def _best(steps: Steps, fed: Sequence[Sequence[int]], rows: Sequence[_Row]) -> list[int]:
    """Return the best allowed token of each row; only the logits of tokens that some row may take are computed."""
    candidates = sorted({token for row in rows for token in row.allowed})
    logits = steps.feed(fed, torch.tensor(candidates))
    places = {token: place for place, token in enumerate(candidates)}
    longest = max(len(row.allowed) for row in rows)
    columns = [[places[token] for token in row.allowed] for row in rows]
    padded = torch.tensor([[*row, *[row[0]] * (longest - len(row))] for row in columns], device=logits.device)
    best = padded.gather(1, logits.gather(1, padded).argmax(dim=1, keepdim=True)).squeeze(1)
    return [candidates[place] for place in best.tolist()]
