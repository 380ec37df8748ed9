"""Where a fusion looks: its attention from the words of an item to the image, its regions, and the other media."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from umie.errors import UmieError
from umie.extraction.downloads import downloaded
from umie.extraction.media import encode_media
from umie.extraction.result import Extraction, Extracts
from umie.records import MEDIA, Record, Span
from umie.records.places import place_name
from umie.tasks import Task
from umie.types import key_of


@dataclass(frozen=True)
class Attention:
    """The attention of an item's words: the mean over their tokens and over the heads.

    Args:
        task: the task whose query the text is read with, with the labels of the checkpoint.
        item: the entity or event.
        span: the words of the entity, or of the trigger.
        weights: by medium as a whole (``image``) and by name of a place (``O1``), 0..1; they sum to 1.
    """

    task: str
    item: Any
    span: Span
    weights: Mapping[str, float]


@torch.no_grad()
def attention_of(extractor: Extracts, found: Extraction) -> list[Attention]:
    """Return the attention from each entity and each trigger to what the model sees.

    Attention says where a fusion looks, and not whether it matters: see ``Extractor.explain`` for that. Of a text that
    is too long for the model, only the items in its first part have it.

    Args:
        extractor: the extractor that found them.
        found: its extraction.

    Raises:
        UmieError: the fusion has no attention, the record no media that the model uses, or the tokenizer does not
            report the characters of its tokens.
    """
    model, processor, record = extractor.model, extractor.processor, found.record
    (with_images,) = downloaded([record], extractor.urls)
    (encoded,) = encode_media(model, processor, [with_images], extractor.missing_images, [None])
    names = _slot_names(record, encoded.tensors or {})
    if not names:
        raise UmieError("the model sees no image, sound or video of this record: there is nothing to attend to")
    result = []
    for name, items in (("mner", found.entities), ("med", found.events)):
        spans = [(item, getattr(item, "span", None) or getattr(item, "trigger", None)) for item in items]
        if not any(span for _, span in spans):
            continue
        task = processor.task(name)
        for query in task.queries(record)[:1]:
            tensors = {**processor.encode_query(record, query, task), **(encoded.tensors or {})}
            batch = processor.collate([tensors])
            own = model.decoder.input_names
            inputs: dict[str, Any] = {key: value.to(model.device) for key, value in batch.items() if key not in own}
            fused, _, _ = model.fuse(output_attention=True, **inputs)
            if fused.attention is None:
                name = model.config.fusion["name"]
                raise UmieError(f"the fusion {name} has no attention: use gated or cross_attention")
            weights = fused.attention[0].float().mean(dim=0).cpu()  # [T, V]
            offset, characters = _characters(processor, task, record, query, batch["input_ids"][0])
            for item, span in spans:
                if span is not None and (rows := _tokens(characters, span)):
                    mean = weights[[offset + row for row in rows]].mean(dim=0).tolist()
                    result.append(Attention(name, item, span, dict(zip(names, mean, strict=False))))
    return result


def _slot_names(record: Record, tensors: Mapping[str, Tensor]) -> list[str]:
    """Return the name of each visual slot: a medium as a whole, then its places; see ``UmieModel.embed_visual``."""
    names: list[str] = []
    for medium in MEDIA:
        mask = tensors.get(key_of(medium, "visual_mask"))
        if mask is not None and len(mask):
            places = [place_name(medium, index) for index in range(len(record.places(medium)))]
            others = [f"{medium} {number}" for number in range(2, 1 + len(record.of(medium)))]  # as a whole
            names += [medium, *places, *others][: len(mask)]
    return names


def _characters(
    processor: Any, task: Task[Any], record: Record, query: Any, input_ids: Tensor
) -> tuple[int, list[tuple[int, int]]]:
    """Return the place of the first token of the query in an input, and the characters of the text of each token."""
    before = f"{query.instruction} "
    text = f"{before}{query.text_of(record)}".rstrip()
    if not processor.tokenizer.is_fast:
        raise UmieError("the tokenizer does not report the characters of its tokens: attention needs a fast one")
    read = processor.tokenizer(text, add_special_tokens=False, split_special_tokens=True, return_offsets_mapping=True)
    given, wanted = input_ids.tolist(), list(read.input_ids)
    length = min(8, len(wanted))
    offset = next((at for at in range(len(given)) if given[at : at + length] == wanted[:length]), None)
    if offset is None:
        raise UmieError("the words of the text are not among the tokens of the query as they are read: no attention")
    shown = len(given) - offset  # the text may be truncated
    return offset, [(start - len(before), end - len(before)) for start, end in read.offset_mapping[:shown]]


def _tokens(characters: list[tuple[int, int]], span: Span) -> list[int]:
    return [row for row, (start, end) in enumerate(characters) if start < span[1] and end > max(start, span[0], 0)]


def rows_of(found: list[Attention], record: Record) -> Iterator[tuple[str, ...]]:
    """Yield a header and a row for each item: its words, and its attention to each medium and place."""
    names = list(dict.fromkeys(name for one in found for name in one.weights))
    yield ("attention of", *names)
    for one in found:
        yield (f"{record.surface(one.span)} ({one.task})", *(f"{one.weights.get(name, 0):.2f}" for name in names))
