"""Jump-forward decoding: a token that is the only choice under a constraint is fed together with the next token.

If only one token may come next, no decoder step is needed to choose it. Source: Zheng et al., SGLang (2024), Section 4.
Deviation: over tokens, not over strings, so that the output equals greedy decoding token for token.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor


class AnswerAutomaton(Protocol):
    """The possible answers to one query; see ``umie.constrained``."""

    @property
    def start(self) -> Any:
        """The state before the first token."""

    @property
    def end(self) -> int:
        """The token that ends an answer."""

    def tokens(self, state: Any, remaining: int) -> Sequence[int]:
        """Return the tokens that may come next, if ``remaining`` tokens are left including this one."""

    def next(self, state: Any, token: int) -> Any:
        """Return the state after a token."""


class Steps(Protocol):
    """A decoder that accepts a different number of tokens for each row."""

    def feed(self, tokens: Sequence[Sequence[int]], candidates: Tensor | None = None) -> Tensor:
        """Feed tokens, or none, to each row; return the logits after the last token of each row that got any."""

    def keep(self, rows: Sequence[int]) -> None:
        """Continue with only some of the rows."""


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
    """Decode greedily under a constraint on each row; ``jump=False`` is the reference, which skips no steps.

    Returns:
        Token ids ``[B, L]``, from the start token, with ``pad`` after the end, like transformers' ``generate``.
    """
    rows = [_Row(automaton, start) for automaton in automata]
    active = [row for row in rows if not _advance(row, max_new_tokens, jump)]
    kept = list(rows)
    while active:
        if len(active) <= 0.5 * len(kept):  # removing finished rows costs a copy
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
    """Append the tokens that are the only choice; return whether the answer ended with them."""
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
    """Return the best allowed token of each row, computing only the logits of tokens allowed in some row."""
    candidates = sorted({token for row in rows for token in row.allowed})
    logits = steps.feed(fed, torch.tensor(candidates))
    columns_of = {token: column for column, token in enumerate(candidates)}
    longest = max(len(row.allowed) for row in rows)
    columns = [[columns_of[token] for token in row.allowed] for row in rows]
    padded = torch.tensor([[*row, *[row[0]] * (longest - len(row))] for row in columns], device=logits.device)
    best = padded.gather(1, logits.gather(1, padded).argmax(dim=1, keepdim=True)).squeeze(1)
    return [candidates[column] for column in best.tolist()]
