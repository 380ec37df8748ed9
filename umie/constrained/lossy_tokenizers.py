"""Read answers of tokenizers that do not preserve text: lower-cased, or with spaces around punctuation (WordPiece).

Such a tokenizer decodes ``[person: Ann Lee]`` to ``[ person : ann lee ]``, which is not a span of a text that contains
``Ann Lee``. Its tokens are matched against the text instead, so that spans have the text's own characters.
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

_NO_ITEM = ","  # every style counts it as one dropped item
Decode = Callable[[list[list[int]]], list[str]]


def keeps_answers(tokenizer: PreTrainedTokenizerBase, style: Style, decode: Decode) -> bool:
    """Return whether an item survives encoding and decoding unchanged."""
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
    """Return the answers spelled by rows of tokens, generated with or without a constraint.

    An answer is read item by item, until a token does not fit its format or its text; the rest counts as one dropped
    item. Special tokens are skipped, except the end token and the style's markers. The decoded string is not used: its
    ``ann lee`` may stand for ``Ann Lee``.
    """
    constraint = Constraint(tokenizer, task, asked, max_new_tokens=1)
    markers = {tokenizer.convert_tokens_to_ids(marker) for marker in task.style.markers}
    skipped = {*tokenizer.all_special_ids} - markers - {tokenizer.unk_token_id}
    ends = {automaton.end for automaton in constraint.automata}
    written = [[token for token in row if token not in skipped or token in ends] for row in rows]
    read = constraint.read_strictly(written)
    junk = f"{task.style.separator or ' '}{_NO_ITEM}"
    return [f"{answer}{junk if answer else _NO_ITEM}" if rest else answer for answer, rest in read]
