"""Constraint: restrict the answers to a batch of queries, as a logits processor of transformers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, repeat
from typing import Any

import torch
from torch import Tensor
from transformers import LogitsProcessor, PreTrainedTokenizerBase

from umie.constrained.automaton import AnswerAutomaton, State
from umie.constrained.literals import compile_literals, without_pair
from umie.constrained.symbols import symbols_of
from umie.errors import UmieError, check_whole
from umie.framing import Framing
from umie.records import Record
from umie.tasks import Query, Task


class Constraint(LogitsProcessor):
    """Admit only tokens that lead to a well-formed answer.

    Labels belong to the task's schema, spans occur in the record's text, regions exist in its image, and an answer
    ends within ``max_new_tokens``. The constraint is compiled from the task's output style, which also writes targets
    and parses outputs.

    Args:
        tokenizer: the decoder's tokenizer.
        task: the task, with any labels, including labels that are not in the training data.
        asked: the record and the query of each row of the batch, in order.
        max_new_tokens: as for transformers' ``generate``.
        framing: the tokens around answers; by default those of the tokenizer.

    Raises:
        UmieError: the tokenizer spells two labels alike, or its vocabulary is of an unknown kind.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        task: Task[Any],
        asked: Iterable[tuple[Record, Query]],
        max_new_tokens: int,
        framing: Framing | None = None,
    ) -> None:
        check_whole("max_new_tokens", max_new_tokens, 1)
        self.tokenizer = tokenizer
        symbols = symbols_of(tokenizer, framing)
        style = task.style
        known: dict[Any, AnswerAutomaton] = {}  # queries with the same possible answers share their states
        self.automata: list[AnswerAutomaton] = []
        for record, query in asked:
            schema = without_pair(style, task.answer_schema(record, query.target))
            literals = compile_literals(symbols, style, schema)
            kept, text = (known, record.text) if schema.spans else (literals.automata, "")
            key = text, id(literals), schema.pair
            if key not in kept:
                kept[key] = AnswerAutomaton(symbols, literals, style, text, schema.pair)
            self.automata.append(kept[key])
        self.max_new_tokens = max_new_tokens
        self.restart()

    def restart(self, num_rows: int | None = None, max_new_tokens: int | None = None, num_start_tokens: int = 1) -> int:
        """Forget the answers so far; called before each generation.

        Args:
            num_rows: the number of rows of the batch, if it is to be checked.
            max_new_tokens: the limit of this generation, if it has one.
            num_start_tokens: number of tokens of each row before its answer, while it is generated.

        Returns:
            The effective limit: ``max_new_tokens``, if it is tighter than the constraint's own.

        Raises:
            UmieError: the constraint was made for a batch with another number of rows.
        """
        if num_rows is not None and num_rows != len(self.automata):
            raise self._other_batch(num_rows)
        self._states: list[dict[tuple[int, ...], State]] = [{(): automaton.start} for automaton in self.automata]
        self._num_start_tokens = num_start_tokens
        self._limit = self.max_new_tokens if max_new_tokens is None else min(self.max_new_tokens, max_new_tokens)
        return self._limit

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor) -> torch.FloatTensor:
        """Return the scores, with minus infinity for tokens that may not come next; see transformers."""
        num_rows = len(input_ids)
        if not self.automata or num_rows % len(self.automata):
            raise self._other_batch(num_rows)
        num_beams = num_rows // len(self.automata)
        allowed: list[Sequence[int]] = []
        for row, tokens in enumerate(input_ids[:, self._num_start_tokens :].tolist()):
            automaton = self.automata[row // num_beams]
            state = self._state(row // num_beams, tuple(tokens))
            allowed.append(automaton.tokens(state, self._limit - len(tokens)))
        return mask_scores(scores, allowed)  # type: ignore[return-value] # a FloatTensor, as the scores are

    def allowed(self, row: int, tokens: Sequence[int]) -> Iterator[Sequence[int]]:
        """Yield the tokens that may come at each step of an answer to the query ``row``."""
        automaton = self.automata[row]
        state = automaton.start
        for place, token in enumerate(tokens):
            yield automaton.tokens(state, self._limit - place)
            state = automaton.next(state, token)

    def read(self, token_ids: Tensor | Sequence[Sequence[int]]) -> list[str]:
        """Return the answer that each row spells after its start token; see ``AnswerAutomaton.read``."""
        rows: Sequence[Sequence[int]] = token_ids.tolist() if isinstance(token_ids, Tensor) else token_ids
        if len(rows) != len(self.automata):
            raise self._other_batch(len(rows))
        return [automaton.read(row[1:]) for automaton, row in zip(self.automata, rows, strict=True)]

    def read_strictly(self, rows: Sequence[Sequence[int]]) -> list[tuple[str, list[int]]]:
        """Return, for each answer generated without a constraint, that of its first items, and the tokens after them.

        Rows have the token ids of the answers only; see ``AnswerAutomaton.read_strictly``.
        """
        if len(rows) != len(self.automata):
            raise self._other_batch(len(rows))
        return [automaton.read_strictly(row) for automaton, row in zip(self.automata, rows, strict=True)]

    def _other_batch(self, num_rows: int) -> UmieError:
        return UmieError(
            f"the batch has {num_rows} rows for {len(self.automata)} queries: pass the batch of the constraint"
        )

    def _state(self, index: int, tokens: tuple[int, ...]) -> State:
        """Return the state after some tokens; the state of the previous step is known."""
        states = self._states[index]
        state = states.get(tokens)
        if state is None:
            state = states[tokens] = self.automata[index].next(self._state(index, tokens[:-1]), tokens[-1])
        return state


def mask_scores(scores: Tensor, allowed: Sequence[Sequence[int]]) -> Tensor:
    """Return scores ``[R, V]`` with minus infinity everywhere except at each row's allowed tokens."""
    rows = torch.tensor(
        list(chain.from_iterable(repeat(row, len(tokens)) for row, tokens in enumerate(allowed))), device=scores.device
    )
    columns = torch.tensor(list(chain.from_iterable(allowed)), device=scores.device)
    masked = torch.full_like(scores, float("-inf"))
    masked[rows, columns] = scores[rows, columns]
    return masked
