"""Answers of tokenizers that do not keep text: without upper case, or with spaces between all signs (WordPiece).

Such a tokenizer decodes ``[person: Ann Lee]`` to ``[ person : ann lee ]``, which is no answer about a text that holds
``Ann Lee``. Its tokens are read against the text instead, in the text's own signs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from transformers import PreTrainedTokenizerBase

from umie.constrained.constraint import Constraint
from umie.constrained.symbols import encode
from umie.records import Record
from umie.tasks import Query, Task
from umie.tasks.grammar import AnswerSchema, ParsedItem, Style

_NO_ITEM = ","  # what every style counts as one dropped item
Decode = Callable[[list[list[int]]], list[str]]


def keeps_answers(tokenizer: PreTrainedTokenizerBase, style: Style, decode: Decode) -> bool:
    """Say whether an answer's item comes back from its tokens as it was written."""
    item = ParsedItem("Aa bb", "Cc-Dd")
    markers = [marker for marker in style.markers if marker in tokenizer.get_vocab()]
    (decoded,) = decode([encode(tokenizer, style.linearize([item]), markers)])
    return style.parse(decoded, AnswerSchema(labels=(item.label,), spans=True)) == ([item], 0)


def read_answers(
    tokenizer: PreTrainedTokenizerBase,
    task: Task[Any],
    asked: Iterable[tuple[Record, Query]],
    rows: Sequence[Sequence[int]],
) -> list[str]:
    """Return the answers that rows of tokens spell, generated with or without a constraint.

    An answer is read item by item, until a token does not fit its form and its text; what comes from there on counts
    as one dropped item. Its string is not looked at: ``ann lee`` in it may have been meant as ``Ann Lee``.

    Args:
        tokenizer: the tokenizer.
        task: the task.
        asked: the record and the query of each row.
        rows: token ids; special tokens are passed over, but the end and the style's markers.
    """
    constraint = Constraint(tokenizer, task, asked, max_new_tokens=1)
    markers = {tokenizer.convert_tokens_to_ids(marker) for marker in task.style.markers}
    passed_over = {*tokenizer.all_special_ids} - markers - {tokenizer.unk_token_id}
    ends = {automaton.end for automaton in constraint.automata}
    written = [[token for token in row if token not in passed_over or token in ends] for row in rows]
    read = constraint.read_strictly(written)
    junk = f"{task.style.separator or ' '}{_NO_ITEM}"
    return [f"{answer}{junk if answer else _NO_ITEM}" if rest else answer for answer, rest in read]
