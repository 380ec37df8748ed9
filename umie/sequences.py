"""Queries for decoders that generate answers: texts and answers as token ids, and generated ids read back."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from itertools import groupby
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from umie.constrained import (
    Constraint,
    encode,
    item_probabilities,
    keeps_answers,
    numbered_as_spelled,
    read_answers,
)
from umie.encoders.base import collate, pad_stack
from umie.errors import UmieError
from umie.framing import framing_of, unknown_token_of
from umie.records import Record
from umie.tasks import Items, Query, Task
from umie.tasks.grammar import ParsedItem, Style
from umie.types import IGNORED, FusedStates

_UNKNOWN = "\U0010ffff"  # the unknown token in strings: no character, so that nothing in a text equals it


class SequenceEncoder:
    """Encodes queries for a decoder that generates answers, and reads generated token ids.

    Args:
        tokenizer: the decoder's tokenizer.
        max_tokens: longer inputs are truncated at the end of the text.
        max_target_tokens: the same for answers.
        prompt: the prompt of a causal decoder, see ``umie.framing``; None for an encoder-decoder.

    Attributes:
        framing: the tokens around queries and answers.
        unwritable: the characters that the tokenizer cannot write, with the number of ``inputs`` and of ``targets``
            that contain each.
    """

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, max_tokens: int, max_target_tokens: int, prompt: str | None = None
    ) -> None:
        self.framing = framing_of(tokenizer, prompt)
        self._unknown = unknown_token_of(tokenizer)
        # many causal language models have no padding; what is padded is masked
        self._pad = tokenizer.eos_token_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id
        self.tokenizer, self.max_tokens, self.max_target_tokens = tokenizer, max_tokens, max_target_tokens
        if prompt is not None and (around := sum(map(len, self.framing.around_query))) >= max_tokens:
            raise UmieError(f"the prompt alone has {around} tokens: shorten it, or increase max_input_tokens")
        self.unwritable: dict[str, Counter[str]] = {"inputs": Counter(), "targets": Counter()}
        self._known: dict[str, bool] = {}  # whether the tokenizer can write a character
        self._keeps: dict[str, bool] = {}  # whether it preserves answers, by style

    def encode(self, task: Task[Any], record: Record, query: Query, counts: Counter[str]) -> dict[str, Tensor]:
        """Return ``input_ids [T]``, the instruction and the text, and ``labels [L]``, the answer.

        Args:
            task: the task.
            record: the record.
            query: the query.
            counts: counts truncated inputs and targets, and those with characters that the tokenizer cannot write.
        """
        text = f"{query.instruction} {query.text_of(record)}".rstrip()
        input_ids = self._token_ids(text, (), "inputs", counts)
        labels = self._token_ids(self._answer(task, record, query), query.markers, "targets", counts)
        return {"input_ids": torch.tensor(input_ids), "labels": torch.tensor(labels)}

    def collate(self, items: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
        """Pad and stack encoded queries, with the tensors of their images, into one batch."""
        texts = [item["input_ids"] for item in items]
        batch = {
            "input_ids": pad_stack(texts, self._pad),
            "attention_mask": pad_stack([torch.ones_like(text) for text in texts]),
            "labels": pad_stack([item["labels"] for item in items], IGNORED),
        }
        visual = [{name: value for name, value in item.items() if name not in batch} for item in items]
        return {**batch, **collate(visual)}

    def rows_of(self, batch: Mapping[str, Tensor], asked: Sequence[tuple[Record, Query]]) -> list[list[int]]:
        """Return the row of each query in a batch."""
        return [[row] for row in range(len(asked))]

    def answers(
        self,
        decoder: Any,
        fused: FusedStates,
        batch: Mapping[str, Tensor],
        task: Task[Any],
        asked: Sequence[tuple[Record, Query]],
        *,
        constrained: bool = True,
        probabilities: bool = False,
        threshold: float | None = None,
        **options: Any,
    ) -> list[tuple[Items[Any], str]]:
        """Return the items of each query, and its generated answer; see ``UmieProcessor.answers``."""
        for name in ("num_return_sequences", "return_dict_in_generate"):
            if options.get(name, 1) not in (1, False):
                raise UmieError(f"{name} is {options[name]!r}: use model.generate for other outputs")
        limit = options.setdefault("max_new_tokens", self.max_target_tokens)
        is_constrained = constrained and not task.is_free_text
        constraint = Constraint(self.tokenizer, task, asked, limit, self.framing) if is_constrained else None
        tokens = decoder.generate(fused, constraint, **options)
        outputs = self.decode(tokens, task, asked) if constraint is None else constraint.read(tokens)
        found: Sequence[Sequence[float]] = [()] * len(outputs)
        if probabilities:
            logits = decoder(fused, decoder_input_ids=tokens[:, :-1]).logits
            schemas = [task.answer_schema(record, query.target) for record, query in asked]

            def read_items(row: int, answer: list[int]) -> list[ParsedItem]:
                if constraint is None:
                    (written,) = self.decode([answer], task, [asked[row]])
                else:
                    written = constraint.automata[row].read(answer)
                return task.style.parse(written, schemas[row])[0]

            found = item_probabilities(logits, tokens, read_items, self.framing.end, constraint)
        return [
            (task.parse(output, record, query.target, values), output)
            for output, (record, query), values in zip(outputs, asked, found, strict=True)
        ]

    def decode(
        self,
        token_ids: Tensor | Sequence[Sequence[int]],
        task: Task[Any],
        asked: Sequence[tuple[Record, Query]] | None = None,
    ) -> list[str]:
        """Return the strings of answers that were generated without a constraint; see ``UmieProcessor.decode_text``."""
        rows: Sequence[Sequence[int]] = token_ids.tolist() if isinstance(token_ids, Tensor) else token_ids
        rows = [self._without_padding([self._pad if token == IGNORED else token for token in row]) for row in rows]
        decode = partial(self._strings, style=task.style)
        if asked is None or len(asked) != len(rows) or task.is_free_text:
            return decode(rows)
        if not self._keeps_answers(task.style):
            return read_answers(self.tokenizer, task, asked, rows, framing=self.framing)
        texts = decode(rows)
        for row, one in enumerate(asked):
            # where the tokenizer changes a text, the string of a span may be missing in it, or be another span's
            if self._unknown in rows[row] or not _is_plain(one[0].text):
                (texts[row],) = read_answers(self.tokenizer, task, [one], [rows[row]], decode, self.framing)
        return texts

    def _without_padding(self, row: list[int]) -> list[int]:
        """Return a row without padding around it, if the tokenizer pads with the token of unknown characters."""
        if self._pad != self._unknown:
            return row
        begin, end = 0, len(row)
        while begin < end and row[begin] == self._pad:
            begin += 1
        while end > begin and row[end - 1] == self._pad:
            end -= 1
        return row[begin:end]

    def _answer(self, task: Task[Any], record: Record, query: Query) -> str:
        """Return the answer of a query, with occurrences counted as the tokenizer spells the text."""
        if not task.style.is_numbered or not any(item.filler for item in query.items):
            return query.answer
        if _is_plain(record.text) and self._keeps_answers(task.style) and not self.unwritable_in(record.text):
            return query.answer
        pair = task.answer_schema(record, query.target).pair
        return task.style.linearize(numbered_as_spelled(self.tokenizer, record.text, query.items, self.framing), pair)

    def _keeps_answers(self, style: Style) -> bool:
        if style.name not in self._keeps:
            self._keeps[style.name] = keeps_answers(self.tokenizer, style, partial(self._strings, style=style))
        return self._keeps[style.name]

    def _strings(self, rows: Sequence[Sequence[int]], style: Style) -> list[str]:
        """Return rows as strings, without special tokens except the markers of a style and the unknown token."""
        kept = {self._token(marker): marker for marker in style.markers}
        kept.pop(None, None)
        if self._unknown is not None:
            kept[self._unknown] = _UNKNOWN
        plain = [row for row in rows if not any(token in kept for token in row)]
        texts = iter(
            self.tokenizer.batch_decode(plain, skip_special_tokens=True, clean_up_tokenization_spaces=False)
            if plain
            else ()
        )
        return [self._decode_marked(row, kept) if any(token in kept for token in row) else next(texts) for row in rows]

    def _decode_marked(self, row: Sequence[int], kept: Mapping[int | None, str]) -> str:
        parts: list[str] = []
        for is_kept, run in groupby(row, key=lambda token: token in kept):
            tokens = list(run)
            if is_kept:
                parts += [kept[token] for token in tokens]
            else:
                parts.append(
                    self.tokenizer.decode(tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False).strip()
                )
        return " ".join(part for part in parts if part)

    def _token(self, marker: str) -> int | None:
        """Return the id of a marker that is a single token of the vocabulary, or None."""
        found: int | None = self.tokenizer.convert_tokens_to_ids(marker)
        return None if found == self.tokenizer.unk_token_id else found

    def _token_ids(self, text: str, markers: Sequence[str], what: str, counts: Counter[str]) -> list[int]:
        """Return a query or an answer as token ids with those around it; one that is too long is cut at its end."""
        is_query = what == "inputs"
        before, after = self.framing.around_query if is_query else self.framing.around_answer
        room = max(0, (self.max_tokens if is_query else self.max_target_tokens) - len(before) - len(after))
        ids = encode(self.tokenizer, text, [marker for marker in markers if self._token(marker) is not None])
        if self._unknown in ids or (self._unknown is None and self.unwritable_in(text)):
            counts[f"unwritable_{what}"] += 1
            self.unwritable[what].update(self.unwritable_in(text))
        if len(ids) > room:
            counts[f"truncated_{what}"] += 1
        return [*before, *ids[:room], *after]

    def unwritable_in(self, text: str) -> set[str]:
        """Return the characters of a text that the tokenizer cannot write."""
        return {character for character in set(text) if not self._can_write(character)}

    def _can_write(self, character: str) -> bool:
        if character not in self._known:
            tokens = encode(self.tokenizer, character)
            is_visible = character.isprintable() and not character.isspace()
            is_dropped = self._unknown is None and is_visible and not self.tokenizer.decode(tokens).strip()
            self._known[character] = self._unknown not in tokens and not is_dropped
        return self._known[character]


def _is_plain(text: str) -> bool:
    """Return whether tokenizers that preserve answers preserve a text: others may change its spaces and characters."""
    return text.isascii() and text.isprintable() and " ".join(text.split()) == text
