"""Queries for decoders that score candidates: words, labels and regions as tensors, and answers chosen from scores."""

from __future__ import annotations

import itertools
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import PreTrainedTokenizerBase

from umie.decoders.base import MAX_TARGETS, CandidateOptions, ScoringDecoder
from umie.encoders.base import collate, pad_stack
from umie.errors import UmieError
from umie.records import Record, Span
from umie.tasks import Items, Query, Task, grammar
from umie.tasks.base import span_item
from umie.types import IGNORED, FusedStates

NAMES = tuple(name for name in ScoringDecoder.input_names if name != "labels")
KINDS = ("span", "region", "whole")  # the candidates, in the order of the scores
NO_SPAN = (-1, -1)
# scripts without spaces between words, in which each token is a word: Han, Kana, Thai, Lao, Myanmar, Khmer
_SPACELESS = ("CJK", "HIRAGANA", "KATAKANA", "THAI", "LAO", "MYANMAR", "KHMER", "IDEOGRAPHIC", "BOPOMOFO")


class Word(NamedTuple):
    """A word: its first and last token, and its characters in the text."""

    first: int
    last: int
    start: int
    end: int


def words_of(text: str, tokens: Sequence[tuple[int, Span]]) -> list[Word]:
    """Return the words of a text: runs of letters and digits, other characters, and tokens of scripts without spaces.

    Args:
        text: the text.
        tokens: the position and the characters of each token of the text.
    """
    words: list[Word] = []
    for position, (start, end) in tokens:
        while start < end and text[start].isspace():
            start += 1
        if start == end:
            continue
        first, begin = position, start
        if words and (start < words[-1].end or (start == words[-1].end and _joined(text[start - 1], text[start]))):
            before = words.pop()
            first, begin, end = before.first, before.start, max(end, before.end)
        while end < len(text) and unicodedata.category(text[end]).startswith("M"):  # marks that the tokenizer drops
            end += 1
        words.append(Word(first, position, begin, end))
    return words


def _joined(left: str, right: str) -> bool:
    """Return whether there is no word boundary between two characters."""
    if unicodedata.category(right).startswith("M"):
        return True
    return all(_is_letter(one) and not _is_spaceless(one) for one in (left, right))


def _is_letter(character: str) -> bool:
    return character.isalnum() or unicodedata.category(character).startswith("M")


def _is_spaceless(character: str) -> bool:
    return not character.isascii() and unicodedata.name(character, "").startswith(_SPACELESS)


class _Part(NamedTuple):
    """An instruction that names some of a task's labels: their numbers, and their characters in the instruction."""

    instruction: str
    numbers: Sequence[int]
    spans: Sequence[Span]


class _Tokens(NamedTuple):
    """The tokens of an input, the characters of each, and whether the text was truncated."""

    token_ids: list[int]
    characters: list[Span]
    is_truncated: bool


class CandidateEncoder:
    """Encodes queries for a decoder that scores candidates, and chooses answers from its scores.

    The input is the query's instruction with its labels, then the text. Spans of up to ``max_width`` words, the regions
    of the image and the query as a whole are candidates, as far as the task's answers may contain them. Labels that
    take more than half of ``max_tokens`` are spread over several inputs, the rows of the query.

    Args:
        tokenizer: a fast tokenizer, which reports the characters of each token.
        options: the decoder's candidates.
        max_tokens: longer inputs are truncated at the end of the text.
        max_regions: regions beyond this number have no visual slots, so they are no candidates; None for no limit.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        options: CandidateOptions,
        max_tokens: int,
        max_regions: int | None = None,
    ) -> None:
        if not tokenizer.is_fast:
            raise UmieError(
                f"the tokenizer {type(tokenizer).__name__} does not report the characters of its tokens, which a "
                "decoder that scores spans needs: use a fast tokenizer (tokenizer.json)"
            )
        self.tokenizer, self.options, self.max_tokens, self.max_regions = tokenizer, options, max_tokens, max_regions

    def encode(self, task: Task[Any], record: Record, query: Query, counts: Counter[str]) -> dict[str, Tensor]:
        """Return the tensors of one query, each with its K rows: ``input_ids [K, T]``, those in NAMES, and the answer.

        Args:
            task: the task.
            record: the record.
            query: the query.
            counts: counts truncated inputs, and annotated spans and regions that are no candidates.

        Raises:
            UmieError: a label alone has more than ``max_tokens`` tokens.
        """
        if len(query.label_spans) != len(task.labels) or (
            query.answer and not query.items and task.parse(query.answer, record, query.target)
        ):
            raise UmieError(
                f"the queries of the task {task.name} have no label_spans or items, which a decoder that scores "
                "candidates needs: build them with Task._query"
            )
        whole = _Part(query.instruction, range(len(task.labels)), query.label_spans)
        tokens = self._tokens(whole, record)
        in_instruction = [span for span in tokens.characters if span[0] < span[1] and span[0] < len(whole.instruction)]
        parts, inputs = [whole], [tokens]
        if len(in_instruction) > self.max_tokens // 2 and len(task.labels) > 1:
            parts = self._parts(whole)
            inputs = [self._tokens(part, record) for part in parts]
        if any(each.is_truncated for each in inputs):
            counts["truncated_inputs"] += 1
        rows = [self._encode_row(task, record, query, *each, counts) for each in zip(parts, inputs, strict=True)]
        return {name: pad_stack([row[name] for row in rows], self._filler(name)) for name in rows[0]}

    def _parts(self, whole: _Part) -> list[_Part]:
        """Return instructions that name the labels of a query in turn, each with at most half of the tokens.

        The instruction is not divided if its other words leave no room for labels, or if its labels are not in order.
        """
        text, spans = whole.instruction, whole.spans
        begin, end = spans[0][0], spans[-1][1]
        rest = len(self.tokenizer(text[:begin] + text[end:], split_special_tokens=True).input_ids)
        if rest > self.max_tokens // 4 or list(spans) != sorted(spans):
            return [whole]
        token_starts = [
            first
            for first, _ in self.tokenizer(text, split_special_tokens=True, return_offsets_mapping=True).offset_mapping
        ]
        separator = text[spans[0][1] : spans[1][0]]
        budget = self.max_tokens // 2 - rest
        groups: list[list[int]] = [[]]
        used = 0
        for number, (first, last) in enumerate(spans):
            size = sum(first <= start < last for start in token_starts) + 2  # with the separator
            if groups[-1] and used + size > budget:
                groups.append([])
                used = 0
            groups[-1].append(number)
            used += size
        parts = []
        for numbers in groups:
            instruction, places = text[:begin], list[Span]()
            for number in numbers:
                instruction += separator if places else ""
                label = text[slice(*spans[number])]
                places.append((len(instruction), len(instruction) + len(label)))
                instruction += label
            parts.append(_Part(instruction + text[end:], numbers, places))
        return parts

    def _encode_row(
        self, task: Task[Any], record: Record, query: Query, part: _Part, tokens: _Tokens, counts: Counter[str]
    ) -> dict[str, Tensor]:
        """Return the tensors of one row of a query, whose instruction names a part of the labels."""
        token_ids, characters, is_truncated = tokens
        last_character = max((end for _, end in characters), default=0)
        names = [task.labels[number] for number in part.numbers]
        labels = [
            NO_SPAN if is_truncated and span[1] > last_character else _covered(characters, span) for span in part.spans
        ]
        if NO_SPAN in labels:
            lost = names[labels.index(NO_SPAN)]
            if not self.tokenizer(lost, add_special_tokens=False).input_ids:
                raise UmieError(f"the tokenizer has no tokens for the label {lost!r} of {task.name}: rename it")
            raise UmieError(
                f"the label {lost!r} of {task.name} is beyond the first {self.max_tokens} tokens: use fewer or "
                "shorter labels and a shorter wording, or increase max_input_tokens"
            )
        offset = len(part.instruction) + 1
        in_text = [
            (position, (max(start - offset, 0), end - offset))  # the first token may begin with the space before it
            for position, (start, end) in enumerate(characters)
            if end > max(start, offset)
        ]
        schema = task.answer_schema(record, query.target)
        words = words_of(record.text, in_text) if schema.spans else []
        spans = [
            (words[first], words[last], last - first)
            for first in range(len(words))
            for last in range(first, min(first + self.options.max_width, len(words)))
        ]
        places = {(first.start, last.end): index for index, (first, last, _) in enumerate(spans)}
        shape = len(names)
        regions = {name: index for index, name in enumerate(schema.places)}
        limit = len(regions) if self.max_regions is None else self.max_regions
        num_alone, num_pointed = len(regions) if schema.placed else 0, len(regions) if schema.grounded else 0
        answers = {
            "span_labels": torch.zeros(len(spans), shape, dtype=torch.long),
            "region_labels": torch.zeros(num_alone, shape, dtype=torch.long),
            "whole_labels": torch.full((1, shape), 0 if schema.bare else IGNORED),
            # which regions show a span is known only of those that are answers
            "pointing_labels": torch.full((len(spans), num_pointed), IGNORED),
        }
        for item in query.items:
            column = names.index(item.label) if item.label in names else None
            if column is None:
                continue  # the label is that of another row, or outside the schema
            named = [regions[name] for name in item.places]
            if unreachable := sum(region >= limit for region in named):
                counts["unreachable_regions"] += unreachable
            if item.filler is None:
                for region in named:
                    answers["region_labels"][region, column] = 1
                if not named:
                    answers["whole_labels"][0, column] = 1
                continue
            place = places.get(grammar.locate(record.text, item.filler, item.occurrence) or (0, 0))
            if place is None:
                counts["unreachable_spans"] += 1
                continue
            answers["span_labels"][place, column] = 1
            answers["pointing_labels"][place] = 0
            answers["pointing_labels"][place, named] = 1
        answers["region_labels"][limit:] = IGNORED
        answers["pointing_labels"][:, limit:] = IGNORED
        targets = [
            _covered(characters, (start + offset, end + offset)) for start, end in task.target_spans(query.target)
        ]
        targets = [*targets, *[NO_SPAN] * MAX_TARGETS][:MAX_TARGETS]
        return {
            "input_ids": torch.tensor(token_ids),
            "attention_mask": torch.ones(len(token_ids), dtype=torch.long),
            "label_tokens": torch.tensor(labels),
            "spans": torch.tensor(
                [(a.first, b.last, width, a.start, b.end) for a, b, width in spans], dtype=torch.long
            ).reshape(-1, 5),
            "region_mask": torch.ones(num_alone, dtype=torch.bool),
            "pointing_mask": torch.arange(num_pointed) < limit,
            "target_tokens": torch.tensor(targets),
            **answers,
        }

    def collate(self, items: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
        """Pad and stack encoded queries, with the tensors of their images, into one batch of all their rows.

        The answers become ``labels [B, S + R + 1, C + P]``. A region whose visual slot is not real, because the image
        could not be read, is no candidate.
        """
        own = ("input_ids", "attention_mask", *NAMES, *(f"{kind}_labels" for kind in (*KINDS, "pointing")))
        rows = [(item, row) for item in items for row in range(len(item["input_ids"]))]
        batch = {name: pad_stack([item[name][row] for item, row in rows], self._filler(name)) for name in own}
        answers = [batch.pop(f"{kind}_labels") for kind in KINDS]
        pointing = batch.pop("pointing_labels")
        visual = collate([{name: value for name, value in item.items() if name not in own} for item, _ in rows])
        real = visual.get("visual_mask", torch.zeros(len(rows), 0, dtype=torch.bool))[:, 1:]
        answers[1].masked_fill_(~_of_length(real, answers[1].shape[1])[..., None], IGNORED)
        batch["pointing_mask"] &= _of_length(real, pointing.shape[2])
        pointing = pointing.masked_fill(~batch["pointing_mask"][:, None], IGNORED)
        labels = torch.cat(answers, dim=1)
        elsewhere = pointing.new_full((len(rows), labels.shape[1] - pointing.shape[1], pointing.shape[2]), IGNORED)
        labels = torch.cat([labels, torch.cat([pointing, elsewhere], dim=1)], dim=2)
        return {**batch, "labels": labels, **visual}

    def rows_of(self, batch: Mapping[str, Tensor], asked: Sequence[tuple[Record, Query]]) -> list[list[int]]:
        """Return the rows of each query in a batch."""
        num_labels = (batch["label_tokens"][..., 0] >= 0).sum(dim=1).tolist()
        rows = iter(range(len(num_labels)))
        found: list[list[int]] = []
        for _, query in asked:
            own = [next(rows)]
            while sum(num_labels[row] for row in own) < len(query.label_spans):
                own.append(next(rows))
            found.append(own)
        return found

    def answers(
        self,
        decoder: Any,
        fused: FusedStates,
        batch: Mapping[str, Tensor],
        task: Task[Any],
        asked: Sequence[tuple[Record, Query]],
        **_: Any,
    ) -> list[tuple[Items[Any], str]]:
        """Return the items of each query, by position, with their probabilities; see ``UmieProcessor.answers``."""
        inputs = {name: batch[name].to(fused.states.device) for name in NAMES}
        return self.choose(decoder(fused, **inputs).logits, batch, task, asked)

    def choose(
        self, logits: Tensor, batch: Mapping[str, Tensor], task: Task[Any], asked: Sequence[tuple[Record, Query]]
    ) -> list[tuple[Items[Any], str]]:
        """Return the items of each query, by position, with their probabilities; and their written form.

        Args:
            logits: ``[B, S + R + 1, C + P]``, from the decoder.
            batch: the batch, from ``collate``.
            task: the task of all queries.
            asked: the record and the query of each answer.
        """
        num_columns = batch["label_tokens"].shape[1]
        is_candidate = (batch["labels"][..., :num_columns] != IGNORED).to(logits.device)
        scores = logits[..., :num_columns].float().masked_fill(~is_candidate, float("-inf"))
        points = logits[..., num_columns:].float().sigmoid() >= self.options.threshold  # [B, S + R + 1, P]
        points = (points & batch["pointing_mask"][:, None].to(logits.device)).cpu()
        probabilities = scores.sigmoid()
        is_answer = (probabilities >= self.options.threshold) & scores.isfinite()
        best = scores.flatten(1).argmax(dim=1).tolist()
        above: list[list[tuple[int, int]]] = [[] for _ in scores]
        for row, place, column in is_answer.nonzero().tolist():
            above[row].append((place, column))
        scores, probabilities = scores.cpu(), probabilities.cpu()
        num_labels = (batch["label_tokens"][..., 0] >= 0).sum(dim=1).tolist()
        characters = batch["spans"][..., 3:].tolist()
        num_spans, num_regions = batch["spans"].shape[1], batch["region_mask"].shape[1]
        found = []
        for rows, (record, query) in zip(self.rows_of(batch, asked), asked, strict=True):
            schema = task.answer_schema(record, query.target)
            chosen = [(row, *one) for row in rows for one in above[row]]
            if schema.at_least_one and not chosen:
                likely = max(((row, *divmod(best[row], scores.shape[2])) for row in rows), key=lambda one: scores[one])
                chosen = [likely] if scores[likely].isfinite() else []
            # by score: probabilities near 1 are equal in float32
            ranked = sorted(chosen, key=lambda one: (float(scores[one]), one), reverse=True)
            before = dict(zip(rows, itertools.accumulate((num_labels[row] for row in rows), initial=0), strict=False))
            spans: list[Span] = []
            written: list[tuple[tuple[int, ...], grammar.ParsedItem, float]] = []
            for row, place, column in ranked:
                label = task.labels[before[row] + column]
                where: tuple[int, ...] = (2,)
                if place < num_spans:
                    start, end = characters[row][place]
                    if not self.options.nested and any(start < last and first < end for first, last in spans):
                        continue
                    spans.append((start, end))
                    shown = [schema.places[region] for region in points[row, place].nonzero().flatten().tolist()]
                    where, item = (0, start, end), span_item(label, record.text, (start, end), shown)
                elif place < num_spans + num_regions:
                    where, item = (1, place), grammar.ParsedItem(label, places=(schema.places[place - num_spans],))
                else:
                    item = grammar.ParsedItem(label)
                written.append((where, item, float(probabilities[row, place, column])))
            written.sort(key=lambda one: one[0])  # by position in the text, then regions, then the whole query
            values_of = {item: value for _, item, value in written}
            items = task.read(values_of, record, query.target)
            found.append((items, task.style.linearize(values_of, schema.pair)))
        return found

    def _filler(self, name: str) -> int:
        """Return the value of padding; a label that does not exist has no tokens."""
        if name == "input_ids":
            return int(self.tokenizer.pad_token_id)
        return IGNORED if name.endswith("_labels") else -1 if name == "label_tokens" else 0

    def _tokens(self, part: _Part, record: Record) -> _Tokens:
        """Return the tokens of an input, and the characters of each; special tokens have none."""
        text = f"{part.instruction} {record.text}".rstrip()
        encoded = self.tokenizer(text, split_special_tokens=True, return_offsets_mapping=True)
        token_ids, characters = list(encoded.input_ids), list(encoded.offset_mapping)
        if len(token_ids) <= self.max_tokens:
            return _Tokens(token_ids, characters, is_truncated=False)
        last = self.tokenizer.eos_token_id
        token_ids = [*token_ids[: self.max_tokens - 1], token_ids[-1] if last is None else last]
        return _Tokens(token_ids, [*characters[: self.max_tokens - 1], (0, 0)], is_truncated=True)


def _of_length(mask: Tensor, length: int) -> Tensor:
    """Return a mask ``[B, N]`` with ``length`` columns; those added are False."""
    return F.pad(mask[:, :length], (0, max(0, length - mask.shape[1])))


def _covered(characters: Sequence[Span], span: Span) -> tuple[int, int]:
    """Return the first and the last token that have characters of a span; -1 if there are none."""
    found = [index for index, (start, end) in enumerate(characters) if start < span[1] and end > max(start, span[0])]
    return (found[0], found[-1]) if found else NO_SPAN
