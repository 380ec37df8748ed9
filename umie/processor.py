"""UmieProcessor: records to batches of tensors, and generated token ids back to records."""

from __future__ import annotations

import inspect
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from umie import encoders, tasks
from umie.constrained import Constraint, encode, keeps_answers, read_answers
from umie.encoders.base import collate, pad_stack
from umie.encoders.images import ImageSource
from umie.errors import UmieError, check_keys
from umie.files import atomic_write
from umie.records import Box, Record, Region
from umie.tasks import Items, Query, Task
from umie.tasks.grammar import Style
from umie.types import check_image_policy

HINTS = {
    "error": "mend it, or compose with missing_images='text_only' or 'skip'",
    "skip": "pass processor.usable(records), which leaves such records out",
}
IGNORED = -100  # label of positions that the loss passes over
FILE = "umie_processor.json"


class FeatureSource(Protocol):
    """What gives the visual tensors of one image."""

    def one(self, image: ImageSource | None, regions: Sequence[Region | Box] = ()) -> dict[str, Tensor]:
        """Return ``boxes [V, 4]``, ``visual_mask [V]`` and what the model makes features of, or the features."""


class UmieProcessor:
    """The tensors' side of a variant: tokenizer, image preprocessing, tasks and their label schemas.

    Args:
        tokenizer: the decoder's.
        encoder: name and options of the visual encoder, as in UmieConfig; no weights are needed here.
        task_options: for each task its options (``labels``, ``variant``, ``style``); a task left out has the
            paper's.
        max_input_tokens: longer inputs lose the end of their text, which ``counts`` tells (paper: 256).
        max_target_tokens: as above for targets (paper: 128).
        missing_images: what an image that is not there or cannot be read does: ``error``; ``text_only``, its
            record is asked about all the same; ``skip``, datasets and evaluations leave its record out.

    Attributes:
        counts: how often an input or target was truncated, an image was missing, an item dropped.
        unreadable: why an image that was met could not be read, by its name.
        features: where set, gives each image's features in place of its pixels; see ``CachedEncoder``.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        encoder: Mapping[str, Any],
        task_options: Mapping[str, Mapping[str, Any]] | None = None,
        *,
        max_input_tokens: int = 256,
        max_target_tokens: int = 128,
        missing_images: str = "error",
    ) -> None:
        check_image_policy(missing_images)
        self.tokenizer = tokenizer
        self.encoder = dict(encoder)
        self.task_options = {name: dict(options) for name, options in (task_options or {}).items()}
        self.max_input_tokens = max_input_tokens
        self.max_target_tokens = max_target_tokens
        self.missing_images = missing_images
        self.preprocessor = encoders.build_preprocessor(self.encoder)
        self.counts: Counter[str] = Counter()
        self.unreadable: dict[str, str] = {}
        self.features: FeatureSource | None = None
        self._checked: dict[tuple[str, tuple[Region, ...]], str] = {}
        self._in_memory: dict[int, tuple[Any, str]] = {}  # images without a file, held so that their ids stay theirs
        self._tasks: dict[str, Task[Any]] = {}
        for name in self.task_options:
            self.task(name)

    def task(self, task: str | Task[Any]) -> Task[Any]:
        """Return the task of this name with this processor's options; a built task is passed through."""
        if isinstance(task, Task):
            return task
        if task not in self._tasks:
            self._tasks[task] = tasks.registry.build(task, **self.task_options.get(task, {}))
        return self._tasks[task]

    def __call__(self, records: Record | Iterable[Record], task: str | Task[Any]) -> dict[str, Tensor]:
        """Return the batch of all queries about the records, in their order.

        Args:
            records: one record or several; a record may give several queries (MRE: one a pair, MEAE: one an
                event).
            task: a task's name, or a built task.

        Returns:
            ``input_ids`` and ``attention_mask [Q, T]``, ``labels [Q, L]`` (-100 in padding), ``boxes
            [Q, V, 4]``, ``visual_mask [Q, V]`` and the encoder's own tensors; Q counts queries.

        Raises:
            UmieError: no record gives a query, or an image cannot be read under the policy ``error``.
        """
        task = self.task(task)
        items = []
        for record in _as_list(records):
            queries = task.queries(record)
            with_image = self.encode_image(record) if queries else {}
            items += [{**self.encode_query(record, query), **with_image} for query in queries]
        if not items:
            raise UmieError(
                f"no queries: {task.name} asks about the pairs of `relations` (type 'none' where unknown) or the "
                "`events` of a record, and none of these records has any"
            )
        return self.collate(items)

    def constraint(
        self, records: Record | Iterable[Record], task: str | Task[Any], max_new_tokens: int | None = None
    ) -> Constraint:
        """Return the constraint on the answers to all queries about the records, as ``__call__`` orders them.

        Args:
            records: the records.
            task: the task; a built one brings labels of its own, seen in training or not.
            max_new_tokens: as for ``generate``; by default ``max_target_tokens``.
        """
        task = self.task(task)
        asked = [(record, query) for record in _as_list(records) for query in task.queries(record)]
        limit = self.max_target_tokens if max_new_tokens is None else max_new_tokens
        return Constraint(self.tokenizer, task, asked, limit)

    def encode_query(self, record: Record, query: Query) -> dict[str, Tensor]:
        """Return ``input_ids [T]`` and ``labels [L]`` of one query: the instruction, then the text."""
        text = f"{query.instruction} {record.text}".rstrip()
        input_ids = self._token_ids(text, (), self.max_input_tokens, "truncated_inputs")
        labels = self._token_ids(query.answer, query.markers, self.max_target_tokens, "truncated_targets")
        return {"input_ids": torch.tensor(input_ids), "labels": torch.tensor(labels)}

    def encode_image(self, record: Record) -> dict[str, Tensor]:
        """Return the visual tensors of one record; without slots where it has no image, or under the policy.

        Raises:
            UmieError: the image cannot be read and the policy is not ``text_only``.
        """
        source = self.preprocessor if self.features is None else self.features
        if record.image is None:
            return source.one(None)
        try:
            return source.one(_image(record), record.regions)
        except UmieError as error:
            if self.missing_images != "text_only":
                raise UmieError(
                    f"record {record.id or record.text[:40]!r}: {error}; {HINTS[self.missing_images]}"
                ) from error
            self._count_unreadable(record, str(error))
            return source.one(None)

    def usable(self, records: Iterable[Record]) -> list[Record]:
        """Return the records without those that the policy ``skip`` leaves out; every other policy keeps all.

        Each image is looked at once. ``unreadable`` tells why one could not be read.
        """
        if self.missing_images != "skip":
            return list(records)
        return [record for record in records if self._is_readable(record)]

    def reset_counts(self) -> None:
        """Count from zero again, e.g. for another split."""
        self.counts.clear()
        self.unreadable.clear()

    def _is_readable(self, record: Record) -> bool:
        if record.image is None:
            return True
        place = (self._name(record), record.regions)
        if place not in self._checked:
            try:
                self.preprocessor.check(_image(record), record.regions)
                self._checked[place] = ""
            except UmieError as error:
                self._checked[place] = str(error)
        if self._checked[place]:
            self._count_unreadable(record, self._checked[place])
        return not self._checked[place]

    def _count_unreadable(self, record: Record, reason: str) -> None:
        """Count an image once, however many records and epochs meet it."""
        name = self._name(record)
        if name not in self.unreadable:
            self.unreadable[name] = reason
            self.counts["missing_images"] += 1

    def collate(self, items: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
        """Pad and stack encoded queries into one batch."""
        pad = self.tokenizer.pad_token_id
        texts = [item["input_ids"] for item in items]
        batch = {
            "input_ids": pad_stack(texts, pad),
            "attention_mask": pad_stack([torch.ones_like(text) for text in texts]),
            "labels": pad_stack([item["labels"] for item in items], IGNORED),
        }
        visual = [{name: value for name, value in item.items() if name not in batch} for item in items]
        return {**batch, **collate(visual)}

    def decode(
        self,
        token_ids: Tensor | Sequence[Sequence[int]],
        records: Record | Iterable[Record],
        task: str | Task[Any],
        constraint: Constraint | None = None,
    ) -> list[Record]:
        """Return the records with what was generated about them as their only annotation of this task.

        Args:
            token_ids: ``[Q, L]``, one row for each query, as ``__call__`` ordered them.
            records: the same records as given there.
            task: the same task.
            constraint: the one that they were generated under; it reads them exactly, also what the tokenizer
                does not keep.

        Raises:
            UmieError: there are more or fewer rows than queries.
        """
        task = self.task(task)
        records = _as_list(records)
        asked = [(record, query) for record in records for query in task.queries(record)]
        texts = self.decode_text(token_ids, task, asked) if constraint is None else constraint.read(token_ids)
        found = self.parse(texts, records, task)
        return [task.with_items(record, items) for record, items in zip(records, found, strict=True)]

    def decode_text(
        self,
        token_ids: Tensor | Sequence[Sequence[int]],
        task: str | Task[Any] = "mner",
        asked: Sequence[tuple[Record, Query]] | None = None,
    ) -> list[str]:
        """Return the generated strings, without special tokens but the markers of the task's output style.

        Args:
            token_ids: ``[Q, L]``.
            task: the task.
            asked: the record and the query of each row, where at hand: with them the answers of a tokenizer that
                does not keep text come back in the text's own signs; see ``umie.constrained.lossy_tokenizers``.
        """
        rows: Sequence[Sequence[int]] = token_ids.tolist() if isinstance(token_ids, Tensor) else token_ids
        if not rows:
            return []
        pad = self.tokenizer.pad_token_id
        rows = [[pad if token == IGNORED else token for token in row] for row in rows]
        task = self.task(task)
        decode = partial(self._strings, style=task.style)
        if asked is None or len(asked) != len(rows) or keeps_answers(self.tokenizer, task.style, decode):
            return decode(rows)
        return read_answers(self.tokenizer, task, asked, rows)

    def _strings(self, rows: Sequence[Sequence[int]], style: Style) -> list[str]:
        markers = {self._token(marker): marker for marker in style.markers}
        markers.pop(None, None)
        if not markers:
            texts: list[str] = self.tokenizer.batch_decode(
                rows, skip_special_tokens=True, clean_up_tokenization_spaces=False
            )
            return texts
        return [self._decode_marked(row, markers) for row in rows]

    def parse(self, outputs: Sequence[str], records: Sequence[Record], task: str | Task[Any]) -> list[Items[Any]]:
        """Return, for each record, the items of all its queries, from one generated string for each query."""
        task = self.task(task)
        queries = [task.queries(record) for record in records]
        total = sum(map(len, queries))
        if len(outputs) != total:
            raise UmieError(f"{len(outputs)} outputs for {total} queries: pass the records that were asked about")
        remaining = iter(outputs)
        found = []
        for record, asked in zip(records, queries, strict=True):
            items: Items[Any] = Items()
            for query in asked:
                parsed = task.parse(next(remaining), record.text, query.target, len(record.regions))
                items.extend(item for item in parsed if item not in items)
                items.dropped += parsed.dropped
            self.counts["dropped_items"] += items.dropped
            found.append(items)
        return found

    def save_pretrained(self, folder: str | Path) -> None:
        """Write the tokenizer and the options into a folder, beside the model."""
        self.tokenizer.save_pretrained(str(folder))
        options = {
            "encoder": self.encoder,
            "task_options": self.task_options,
            "max_input_tokens": self.max_input_tokens,
            "max_target_tokens": self.max_target_tokens,
            "missing_images": self.missing_images,
        }
        with atomic_write(Path(folder) / FILE) as file:
            json.dump(options, file, indent=2, ensure_ascii=False)

    @classmethod
    def from_pretrained(cls, folder: str | Path) -> UmieProcessor:
        """Load what ``save_pretrained`` wrote.

        Raises:
            UmieError: the folder holds no processor.
        """
        try:
            options = json.loads((Path(folder) / FILE).read_text(encoding="utf-8"))
        except (OSError, json.JSONDecodeError) as error:
            raise UmieError(f"{folder} holds no {FILE}: save model and processor into one folder") from error
        names = [name for name in inspect.signature(cls).parameters if name != "tokenizer"]
        check_keys(f"option in {Path(folder) / FILE}:", options, names)
        return cls(AutoTokenizer.from_pretrained(str(folder)), **options)

    def _name(self, record: Record) -> str:
        """Return what an image is called: its file, or a number and its record for one in memory."""
        if isinstance(record.image, str):
            return str(Path(record.image_folder or "") / record.image)
        number = len(self._in_memory) + 1
        named = record.image, f"image {number} in memory, of record {record.id or record.text[:40]!r}"
        return self._in_memory.setdefault(id(record.image), named)[1]

    def _token(self, marker: str) -> int | None:
        """Return the id of a marker that is one token of the vocabulary, or None."""
        found: int | None = self.tokenizer.convert_tokens_to_ids(marker)
        return None if found == self.tokenizer.unk_token_id else found

    def _decode_marked(self, row: Sequence[int], markers: Mapping[int | None, str]) -> str:
        parts: list[str] = []
        for is_marker, run in groupby(row, key=lambda token: token in markers):
            tokens = list(run)
            if is_marker:
                parts += [markers[token] for token in tokens]
            else:
                parts.append(
                    self.tokenizer.decode(tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False).strip()
                )
        return " ".join(part for part in parts if part)

    def _token_ids(self, text: str, markers: Sequence[str], limit: int, counter: str) -> list[int]:
        markers = [marker for marker in markers if self._token(marker) is not None]
        ids: list[int] = self.tokenizer(text if not markers else "", split_special_tokens=True).input_ids
        if markers:
            ids = [*ids[:-1], *encode(self.tokenizer, text, markers), *ids[-1:]]
        if len(ids) > limit:
            self.counts[counter] += 1
            end = self.tokenizer.eos_token_id
            ids = [*ids[: limit - 1], ids[-1] if end is None else end]  # BERT's ends with its separator
        return ids


def _image(record: Record) -> Any:
    path = record.image_path()
    return record.image if path is None else path


def _as_list(records: Record | Iterable[Record]) -> list[Record]:
    return [records] if isinstance(records, Record) else list(records)
