"""Constraint: what a batch of queries may be answered with, as a logits processor of transformers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import chain, repeat
from typing import Any

import torch
from torch import Tensor
from transformers import LogitsProcessor, PreTrainedTokenizerBase

from umie.constrained.automaton import AnswerAutomaton, State
from umie.constrained.literals import compile_literals, without_pair
from umie.constrained.symbols import symbols_of
from umie.errors import UmieError, check_whole
from umie.records import Record
from umie.tasks import Query, Task


class Constraint(LogitsProcessor):
    """Lets only those tokens through that lead to a well-formed answer.

    Labels are those of the task's schema, spans occur in the record's text, regions exist in its image, and an
    answer is brought to its end before ``max_new_tokens`` are used up. It is compiled from the task's output style,
    the same object that writes targets and reads outputs.

    Args:
        tokenizer: the decoder's.
        task: the task; its labels may be any, also ones that no training saw.
        asked: the record and the query of each row of the batch, in the order of the batch.
        max_new_tokens: as for transformers' ``generate``.
        prompt_length: tokens that the decoder is given before it generates: 1, the start token.

    Raises:
        UmieError: the tokenizer spells two labels alike, or cannot be understood.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        task: Task[Any],
        asked: Iterable[tuple[Record, Query]],
        max_new_tokens: int,
        prompt_length: int = 1,
    ) -> None:
        check_whole("max_new_tokens", max_new_tokens, 1)
        self.tokenizer = tokenizer
        symbols = symbols_of(tokenizer)
        style = task.style
        known: dict[Any, AnswerAutomaton] = {}  # queries that may be answered alike share their states
        self.automata: list[AnswerAutomaton] = []
        for record, query in asked:
            forms = without_pair(style, task.answer_schema(record.text, query.target, len(record.regions)))
            literals = compile_literals(symbols, style, forms)
            kept, text = (known, record.text) if forms.spans else (literals.automata, "")
            key = text, id(literals), forms.pair
            if key not in kept:
                kept[key] = AnswerAutomaton(symbols, literals, style, text, forms.pair)
            self.automata.append(kept[key])
        self.max_new_tokens = max_new_tokens
        self.prompt_length = prompt_length
        self.restart()

    def restart(self, num_rows: int | None = None, max_new_tokens: int | None = None) -> int:
        """Forget the answers so far; done before each generation.

        Args:
            num_rows: rows of the batch, to be checked.
            max_new_tokens: the limit of this generation, where it is tighter than the constraint's own.

        Returns:
            The limit that holds.

        Raises:
            UmieError: the batch is not the one that the constraint is for.
        """
        if num_rows is not None and num_rows != len(self.automata):
            raise self._other_batch(num_rows)
        self._states: list[dict[tuple[int, ...], State]] = [{(): automaton.start} for automaton in self.automata]
        self._limit = self.max_new_tokens if max_new_tokens is None else min(self.max_new_tokens, max_new_tokens)
        return self._limit

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor) -> torch.FloatTensor:
        """Return the scores with everything that may not come at minus infinity; see transformers."""
        num_rows = len(input_ids)
        if not self.automata or num_rows % len(self.automata):
            raise self._other_batch(num_rows)
        num_beams = num_rows // len(self.automata)
        allowed: list[Sequence[int]] = []
        for row, tokens in enumerate(input_ids[:, self.prompt_length :].tolist()):
            automaton = self.automata[row // num_beams]
            state = self._state(row // num_beams, tuple(tokens))
            allowed.append(automaton.tokens(state, self._limit - len(tokens)))
        return mask_scores(scores, allowed)  # type: ignore[return-value] # a FloatTensor, as the scores are

    def read(self, token_ids: Tensor | Sequence[Sequence[int]]) -> list[str]:
        """Return the answers that generated rows spell, one row for each query; see ``AnswerAutomaton.read``."""
        rows: Sequence[Sequence[int]] = token_ids.tolist() if isinstance(token_ids, Tensor) else token_ids
        if len(rows) != len(self.automata):
            raise self._other_batch(len(rows))
        return [automaton.read(row[self.prompt_length :]) for automaton, row in zip(self.automata, rows, strict=True)]

    def read_strictly(self, rows: Sequence[Sequence[int]]) -> list[tuple[str, list[int]]]:
        """Return what rows spell that were generated without a constraint; see ``AnswerAutomaton.read_strictly``.

        Args:
            rows: token ids of the answers alone, one row for each query.

        Returns:
            For each row the answer that its first items spell, and the tokens from the first on that does not fit.
        """
        if len(rows) != len(self.automata):
            raise self._other_batch(len(rows))
        return [automaton.read_strictly(row) for automaton, row in zip(self.automata, rows, strict=True)]

    def _other_batch(self, num_rows: int) -> UmieError:
        return UmieError(f"{num_rows} rows for {len(self.automata)} queries: pass the batch that the constraint is for")

    def _state(self, index: int, tokens: tuple[int, ...]) -> State:
        """Return the state behind some tokens; those of the step before are known."""
        states = self._states[index]
        state = states.get(tokens)
        if state is None:
            state = states[tokens] = self.automata[index].next(self._state(index, tokens[:-1]), tokens[-1])
        return state


def mask_scores(scores: Tensor, allowed: Sequence[Sequence[int]]) -> Tensor:
    """Return scores ``[R, V]`` with minus infinity everywhere but at each row's allowed tokens."""
    rows = torch.tensor(
        list(chain.from_iterable(repeat(row, len(tokens)) for row, tokens in enumerate(allowed))), device=scores.device
    )
    columns = torch.tensor(list(chain.from_iterable(allowed)), device=scores.device)
    masked = torch.full_like(scores, float("-inf"))
    masked[rows, columns] = scores[rows, columns]
    return masked
