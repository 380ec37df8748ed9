"""Read answers of tokenizers that do not preserve text: lower-cased, or with spaces around punctuation (WordPiece).

Such a tokenizer decodes ``[person: Ann Lee]`` to ``[ person : ann lee ]``, which is not a span of a text that contains
``Ann Lee``. Its tokens are matched against the text instead, so that spans have the text's own characters.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

from transformers import PreTrainedTokenizerBase

from umie.constrained.constraint import Constraint
from umie.constrained.symbols import View, encode, symbols_of
from umie.framing import Framing
from umie.records import Record
from umie.tasks import Query, Task
from umie.tasks.grammar import AnswerSchema, ParsedItem, Style, locate, occurrence_of

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
    decode: Decode | None = None,
    framing: Framing | None = None,
) -> list[str]:
    """Return the answers spelled by rows of tokens, generated with or without a constraint.

    An answer is read item by item, until a token does not fit its format or its text. The rest counts as one dropped
    item, or is decoded by ``decode``. Special tokens are skipped, except the end token and the style's markers. The
    decoded string of a whole answer is not used: its ``ann lee`` may stand for ``Ann Lee``.
    """
    if not rows:
        return []
    constraint = Constraint(tokenizer, task, asked, 1, framing)
    markers = {tokenizer.convert_tokens_to_ids(marker) for marker in task.style.markers}
    skipped = {*tokenizer.all_special_ids} - markers - {tokenizer.unk_token_id}
    ends = {automaton.end for automaton in constraint.automata}
    written = [[token for token in row if token not in skipped or token in ends] for row in rows]
    read = constraint.read_strictly(written)
    decoded = iter([_NO_ITEM] * len(read) if decode is None else decode([rest for _, rest in read]))
    separator = task.style.separator or " "
    return [
        f"{answer}{separator if answer else ''}{text}" if rest and text else answer
        for (answer, rest), text in zip(read, decoded, strict=True)
    ]


def numbered_as_spelled(
    tokenizer: PreTrainedTokenizerBase, text: str, items: Iterable[ParsedItem], framing: Framing | None = None
) -> list[ParsedItem]:
    """Return items with their occurrences counted as the tokenizer spells the text.

    In ``Ann met ANN``, a tokenizer without upper case spells the second name like the first one, so it is written as
    the second occurrence.
    """
    view = symbols_of(tokenizer, framing).view(text)
    return [_numbered(item, view, text) for item in items]


def _numbered(item: ParsedItem, view: View, text: str) -> ParsedItem:
    if item.filler is None:
        return item
    start, end = locate(text, item.filler, item.occurrence) or (0, 0)
    bounds = zip(view.starts, view.ends, strict=True)
    places = [place for place, (first, last) in enumerate(bounds) if start <= first < last <= end]
    if not places:
        return item
    return replace(item, occurrence=occurrence_of(view.symbols, (places[0], places[-1] + 1)))
