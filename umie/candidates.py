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
from umie.records import MEDIA, Medium, Places, Record, Span
from umie.tasks import Items, Query, Task, grammar
from umie.tasks.base import log_odds, logistic, written
from umie.types import IGNORED, FusedStates, key_of

NAMES = tuple(name for name in ScoringDecoder.input_names if name != "labels")
KINDS = ("span", "place", "whole")  # the candidates, in the order of the scores
NO_SPAN = (-1, -1)
NO_SLOT = (-1, -1)
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


def check_no_calls(task: Task[Any]) -> None:
    """Raise UmieError if the answers of a task have calls, which a decoder that scores candidates cannot write."""
    if task.style.calls is not None:
        raise UmieError(
            f"the style {task.config.style!r} of {task.name} calls for places by phrases, and a decoder that scores "
            "candidates writes none: use another style, or a decoder that generates answers"
        )


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

    The input is the query's instruction with its labels, then the text. Spans of up to ``max_width`` words, the places
    in the record's media and the query as a whole are candidates, as far as the task's answers may contain them. An
    item with several places is the candidate of the first, which points at the others. Labels that take more than half
    of ``max_tokens`` are spread over several inputs, the rows of the query.

    Args:
        tokenizer: a fast tokenizer, which reports the characters of each token.
        options: the decoder's candidates.
        max_tokens: longer inputs are truncated at the end of the text.
        max_places: places of a medium beyond this number have no slots, so they are no candidates; None for no limit.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        options: CandidateOptions,
        max_tokens: int,
        max_places: Mapping[Medium, int] | None = None,
    ) -> None:
        if not tokenizer.is_fast:
            raise UmieError(
                f"the tokenizer {type(tokenizer).__name__} does not report the characters of its tokens, which a "
                "decoder that scores spans needs: use a fast tokenizer (tokenizer.json)"
            )
        self.tokenizer, self.options, self.max_tokens = tokenizer, options, max_tokens
        self.max_places = dict(max_places or {})

    def encode(self, task: Task[Any], record: Record, query: Query, counts: Counter[str]) -> dict[str, Tensor]:
        """Return the tensors of one query, each with its K rows: ``input_ids [K, T]``, those in NAMES, and the answer.

        Args:
            task: the task.
            record: the record.
            query: the query.
            counts: counts truncated inputs, and annotated spans and places that are no candidates.

        Raises:
            UmieError: a label alone has more than ``max_tokens`` tokens.
        """
        check_no_calls(task)
        if task.is_free_text:
            raise UmieError(f"the answers of {task.name} are free text: use a decoder that generates answers")
        names = (*task.labels, *task.field_labels)
        if len(query.label_spans) != len(names) or (
            query.answer and not query.items and task.parse(query.answer, record, query.target)
        ):
            raise UmieError(
                f"the queries of the task {task.name} have no label_spans or items, which a decoder that scores "
                "candidates needs: build them with Task._query"
            )
        whole = _Part(query.instruction, range(len(names)), query.label_spans)
        tokens = self._tokens(whole, query.text_of(record))
        in_instruction = [span for span in tokens.characters if span[0] < span[1] and span[0] < len(whole.instruction)]
        parts, inputs = [whole], [tokens]
        if len(in_instruction) > self.max_tokens // 2 and len(task.labels) > 1:
            parts = self._parts(whole)
            inputs = [self._tokens(part, query.text_of(record)) for part in parts]
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
        names = [(*task.labels, *task.field_labels)[number] for number in part.numbers]
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
        numbers = {name: index for index, name in enumerate(schema.places)}
        named = [Places.named([name]) or Places() for name in schema.places]
        slots = [(medium, index) for place in named for medium in MEDIA for index in place.of(medium)]
        reachable = torch.tensor([index < self.max_places.get(medium, index + 1) for medium, index in slots]).bool()
        num_alone, num_pointed = len(slots) if schema.placed_labels else 0, len(slots) if schema.grounded else 0
        is_of_all = torch.tensor([name in schema.labels for name in names])
        is_placed = torch.tensor([name in schema.placed_labels for name in names])
        answers = {
            "span_labels": torch.zeros(len(spans), shape, dtype=torch.long).masked_fill(~is_of_all, IGNORED),
            "place_labels": torch.zeros(num_alone, shape, dtype=torch.long).masked_fill(~is_placed, IGNORED),
            "whole_labels": torch.full((1, shape), 0 if schema.bare else IGNORED).masked_fill(~is_of_all, IGNORED),
            # which places show an item is known only of those that are answers
            "span_pointing_labels": torch.full((len(spans), num_pointed), IGNORED),
            "place_pointing_labels": torch.full((num_alone, num_pointed), IGNORED),
        }
        for item in query.items:
            column = names.index(item.label) if item.label in names else None
            if column is None:
                continue  # the label is that of another row, or outside the schema
            shown = [numbers[name] for name in item.places]
            if unreachable := sum(not reachable[place] for place in shown):
                counts["unreachable_regions"] += unreachable
            if item.filler is None:
                if not shown:
                    answers["whole_labels"][0, column] = 1
                    continue
                kind, place = "place", shown[0]
            else:
                kind = "span"
                found = places.get(grammar.locate(record.text, item.filler, item.occurrence) or (0, 0))
                if found is None:
                    counts["unreachable_spans"] += 1
                    continue
                place = found
            answers[f"{kind}_labels"][place, column] = 1
            pointing = answers[f"{kind}_pointing_labels"][place]
            pointing.masked_fill_(pointing == IGNORED, 0)
            if num_pointed:
                pointing[shown] = 1
        answers["place_labels"][~reachable[:num_alone]] = IGNORED
        for kind in ("span", "place"):
            answers[f"{kind}_pointing_labels"][:, ~reachable[:num_pointed]] = IGNORED
        targets = [
            NO_SPAN if span is None else _covered(characters, (span[0] + offset, span[1] + offset))
            for span in task.target_spans(query.target)
        ]
        targets = [*targets, *[NO_SPAN] * MAX_TARGETS][:MAX_TARGETS]
        about = [_first_slot(place) for place in task.target_places(query.target)]
        about = [*about, *[NO_SLOT] * MAX_TARGETS][:MAX_TARGETS]
        return {
            "input_ids": torch.tensor(token_ids),
            "attention_mask": torch.ones(len(token_ids), dtype=torch.long),
            "label_tokens": torch.tensor(labels),
            "spans": torch.tensor(
                [(a.first, b.last, width, a.start, b.end) for a, b, width in spans], dtype=torch.long
            ).reshape(-1, 5),
            "place_mask": torch.ones(num_alone, dtype=torch.bool),
            "pointing_mask": reachable[:num_pointed].clone(),
            "place_slots": torch.tensor(
                [(MEDIA.index(medium), index) for medium, index in slots[: max(num_alone, num_pointed)]],
                dtype=torch.long,
            ).reshape(-1, 2),
            "target_tokens": torch.tensor(targets),
            "target_slots": torch.tensor(about),
            **answers,
        }

    def collate(self, items: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
        """Pad and stack encoded queries, with the tensors of their images, into one batch of all their rows.

        The answers become ``labels [B, S + R + 1, C + P]``. A place whose slot is not real, because the image could not
        be read, is no candidate.
        """
        kinds = (*KINDS, "span_pointing", "place_pointing")
        own = ("input_ids", "attention_mask", *NAMES, *(f"{kind}_labels" for kind in kinds))
        rows = [(item, row) for item in items for row in range(len(item["input_ids"]))]
        batch = {name: pad_stack([item[name][row] for item, row in rows], self._filler(name)) for name in own}
        answers = [batch.pop(f"{kind}_labels") for kind in KINDS]
        pointing = [batch.pop(f"{kind}_pointing_labels") for kind in KINDS[:2]]
        visual = collate([{name: value for name, value in item.items() if name not in own} for item, _ in rows])
        batch["place_slots"], is_real = _slots_in(visual, batch["place_slots"])
        about, is_known = _slots_in(visual, batch["target_slots"])
        batch["target_slots"] = about.masked_fill(~is_known, -1)
        answers[1].masked_fill_(~is_real[:, : answers[1].shape[1], None], IGNORED)
        batch["pointing_mask"] &= is_real[:, : batch["pointing_mask"].shape[1]]
        pointed = torch.cat(pointing, dim=1)
        pointed = torch.cat([pointed, pointed.new_full((len(rows), 1, pointed.shape[2]), IGNORED)], dim=1)
        pointed = pointed.masked_fill(~batch["pointing_mask"][:, None], IGNORED)
        labels = torch.cat([torch.cat(answers, dim=1), pointed], dim=2)
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
        threshold: float | None = None,
        **_: Any,
    ) -> list[tuple[Items[Any], str]]:
        """Return the items of each query, by position, with their probabilities; see ``UmieProcessor.answers``."""
        inputs = {name: batch[name].to(fused.states.device) for name in NAMES}
        return self.choose(decoder(fused, **inputs).logits, batch, task, asked, threshold)

    def choose(
        self,
        logits: Tensor,
        batch: Mapping[str, Tensor],
        task: Task[Any],
        asked: Sequence[tuple[Record, Query]],
        threshold: float | None = None,
    ) -> list[tuple[Items[Any], str]]:
        """Return the items of each query, by position, with their probabilities; and their written form.

        Args:
            logits: ``[B, S + R + 1, C + P]``, from the decoder.
            batch: the batch, from ``collate``.
            task: the task of all queries.
            asked: the record and the query of each answer.
            threshold: the lowest probability of an answer; None uses that of the options, as places always do.
        """
        num_columns = batch["label_tokens"].shape[1]
        is_candidate = (batch["labels"][..., :num_columns] != IGNORED).to(logits.device)
        scores = logits[..., :num_columns].float().masked_fill(~is_candidate, float("-inf"))
        points = logits[..., num_columns:].float().sigmoid() >= self.options.threshold  # [B, S + R + 1, P]
        points = (points & batch["pointing_mask"][:, None].to(logits.device)).cpu()
        lowest = log_odds(self.options.threshold if threshold is None else threshold)
        is_answer = (scores >= lowest) & scores.isfinite()
        best = scores[:, -1].argmax(dim=1).tolist()  # of the whole query
        above: list[list[tuple[int, int]]] = [[] for _ in scores]
        for row, place, column in is_answer.nonzero().tolist():
            above[row].append((place, column))
        scores = scores.cpu()
        num_labels = (batch["label_tokens"][..., 0] >= 0).sum(dim=1).tolist()
        characters = batch["spans"][..., 3:].tolist()
        num_spans, num_places = batch["spans"].shape[1], batch["place_mask"].shape[1]
        found = []
        for rows, (record, query) in zip(self.rows_of(batch, asked), asked, strict=True):
            schema = task.answer_schema(record, query.target)
            chosen = [(row, *one) for row in rows for one in above[row]]
            if schema.at_least_one and not any(place == scores.shape[1] - 1 for _, place, _ in chosen):
                likely = max(((row, scores.shape[1] - 1, best[row]) for row in rows), key=lambda one: scores[one])
                chosen += [likely] if scores[likely].isfinite() else []
            ranked = sorted(chosen, key=lambda one: (float(scores[one]), one), reverse=True)
            before = dict(zip(rows, itertools.accumulate((num_labels[row] for row in rows), initial=0), strict=False))
            spans: list[Span] = []
            labels = (*task.labels, *task.field_labels)
            found_items: list[tuple[tuple[int, ...], grammar.ParsedItem, float]] = []
            for row, place, column in ranked:
                label = labels[before[row] + column]
                shown = set(points[row, place].nonzero().flatten().tolist())
                where: tuple[int, ...] = (-1 if schema.at_least_one else 2,)
                if place < num_spans:
                    start, end = characters[row][place]
                    if not self.options.nested and any(start < last and first < end for first, last in spans):
                        continue
                    spans.append((start, end))
                    named = Places.named(schema.places[each] for each in shown) or Places()
                    where, item = (0, start, end), written(label, record, (start, end), named)
                elif place < num_spans + num_places:
                    shown.add(place - num_spans)
                    named = Places.named(schema.places[each] for each in shown) or Places()
                    where, item = (1, place), written(label, record, None, named)
                else:
                    item = grammar.ParsedItem(label)
                found_items.append((where, item, logistic(float(scores[row, place, column]))))
            found_items.sort(key=lambda one: one[0])  # by position in the text, then places, then the whole query
            values_of = {item: value for _, item, value in found_items}
            items = task.read(values_of, record, query.target)
            found.append((items, task.style.linearize(values_of, schema.pair)))
        return found

    def _filler(self, name: str) -> int:
        """Return the value of padding; a label that does not exist has no tokens."""
        if name == "input_ids":
            return int(self.tokenizer.pad_token_id)
        return IGNORED if name.endswith("_labels") else -1 if name in ("label_tokens", "target_slots") else 0

    def _tokens(self, part: _Part, text: str) -> _Tokens:
        """Return the tokens of an input, and the characters of each; special tokens have none."""
        text = f"{part.instruction} {text}".rstrip()
        encoded = self.tokenizer(text, split_special_tokens=True, return_offsets_mapping=True)
        token_ids, characters = list(encoded.input_ids), list(encoded.offset_mapping)
        if len(token_ids) <= self.max_tokens:
            return _Tokens(token_ids, characters, is_truncated=False)
        last = self.tokenizer.eos_token_id
        token_ids = [*token_ids[: self.max_tokens - 1], token_ids[-1] if last is None else last]
        return _Tokens(token_ids, [*characters[: self.max_tokens - 1], (0, 0)], is_truncated=True)


def _slots_in(batch: Mapping[str, Tensor], places: Tensor) -> tuple[Tensor, Tensor]:
    """Return the slots of places among those of all media of a batch, and whether they are real, ``[B, N]`` each.

    ``places [B, N, 2]`` has the number of the medium and the index of the place in it. A medium may have fewer slots
    than places: if it is hidden or cannot be read, and beyond ``max_regions``.
    """
    media, indices = places.unbind(-1)
    none = torch.zeros(len(places), 0, dtype=torch.bool)
    masks = [batch.get(key_of(medium, "visual_mask"), none) for medium in MEDIA]
    width = max(mask.shape[1] for mask in masks) + 1
    real = torch.stack([F.pad(mask, (0, width - mask.shape[1])) for mask in masks], dim=1)  # [B, media, slots]
    own = real.gather(1, media.clamp(min=0)[..., None].expand(-1, -1, width))
    is_real = own.gather(2, (1 + indices).clamp(0, width - 1)[..., None])[..., 0] & (indices >= 0)
    starts = torch.tensor([0, *itertools.accumulate(mask.shape[1] for mask in masks)])
    return (starts[media.clamp(min=0)] + 1 + indices).masked_fill(indices < 0, -1), is_real


def _first_slot(places: Places) -> tuple[int, int]:
    """Return the medium, by its number, and the index of the first of some places."""
    found = [(number, index) for number, medium in enumerate(MEDIA) for index in places.of(medium)]
    return found[0] if found else NO_SLOT


def _covered(characters: Sequence[Span], span: Span) -> tuple[int, int]:
    """Return the first and the last token that have characters of a span; -1 if there are none."""
    found = [index for index, (start, end) in enumerate(characters) if start < span[1] and end > max(start, span[0])]
    return (found[0], found[-1]) if found else NO_SPAN
