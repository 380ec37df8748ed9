"""Images of records to the visual inputs of their queries: encoded once for all tasks, missing ones told."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from umie.encoders.base import collate, no_slots
from umie.encoders.images import open_image
from umie.errors import UmieError, at
from umie.extraction.result import Notice
from umie.model import UmieModel
from umie.processor import UmieProcessor
from umie.records import Record
from umie.types import FEATURES

Visual = dict[str, Tensor]


@dataclass
class Looked:
    """What a record's queries are asked with.

    Args:
        visual: ``boxes [V, 4]``, ``visual_mask [V]`` and ``visual_features [V, Dv]``; nothing for a model that does
            not look at images; None where the policy leaves the record out.
        notices: what was not looked at.
    """

    visual: Visual | None
    notices: list[Notice] = field(default_factory=list)


@torch.no_grad()
def look(
    model: UmieModel,
    processor: UmieProcessor,
    records: Sequence[Record],
    policy: str,
    place: Callable[[int], str] | None = None,
) -> list[Looked]:
    """Encode the images of some records, all of them in one pass.

    Args:
        model: the model.
        processor: its processor, with the policy ``error``.
        records: as many as fit in memory at once.
        policy: what an image that cannot be read does; see UmieProcessor.
        place: what a message calls the record of this index.

    Raises:
        UmieError: an image cannot be read under the policy ``error``, or leaves its folder.
    """
    looked: list[Looked] = []
    for index, record in enumerate(records):
        with nullcontext() if place is None else at(place(index)):
            looked.append(_prepare(model, processor, record, policy))
    return _encode(model, processor, looked)


def image_size(record: Record) -> tuple[int, int] | None:
    """Return width and height of a record's image in pixels, as it is displayed; None where it cannot be read."""
    try:
        path = record.image_path()
        image = record.image if path is None else path
        return None if image is None else open_image(image).size
    except UmieError:
        return None


def _prepare(model: UmieModel, processor: UmieProcessor, record: Record, policy: str) -> Looked:
    record.image_path()  # what leaves its folder is refused, whatever the policy
    if model.encoder is None:
        seen = [] if record.image is None else [Notice("image", "this variant does not look at images")]
        return Looked({}, seen)
    notices = []
    limit = getattr(processor.preprocessor.config, "max_regions", len(record.regions))
    if record.regions and record.image is None:
        notices.append(Notice("regions", f"{len(record.regions)} regions, but no image that they are regions of"))
    elif len(record.regions) > limit:
        notices.append(Notice("regions", f"of {len(record.regions)} regions the first {limit} are looked at"))
    try:
        return Looked(processor.encode_image(record), notices)
    except UmieError as error:
        if policy == "error":
            raise
        reason = error.__cause__ if isinstance(error.__cause__, UmieError) else error
    if policy == "skip":
        return Looked(None, [Notice("image", f"{reason}; nothing was asked")])
    notice = Notice("image", f"{reason}; answered from the text alone")
    return Looked(processor.encode_image(replace(record, image=None)), [*notices, notice])


def _encode(model: UmieModel, processor: UmieProcessor, looked: list[Looked]) -> list[Looked]:
    """Put features in the place of images, so that the queries of all tasks share one pass of the encoder."""
    if model.encoder is None:
        return looked
    seen = [(item, item.visual) for item in looked if item.visual is not None and len(item.visual["visual_mask"])]
    blind = [item for item in looked if item.visual is not None and not len(item.visual["visual_mask"])]
    features: Sequence[Tensor] = ()
    if seen and FEATURES in seen[0][1]:  # from a store
        features = [visual[FEATURES] for _, visual in seen]
    elif seen:
        batch = collate([visual for _, visual in seen])
        features = model.encoder(**{name: value.to(model.device) for name, value in batch.items()}).features
    for (item, visual), row in zip(seen, features, strict=True):
        kept = {**{name: visual[name] for name in no_slots()}, FEATURES: row[: len(visual["visual_mask"])]}
        item.visual = {name: value.to(model.device) for name, value in kept.items()}
    dtype = features[0].dtype if len(features) else next(model.parameters()).dtype
    for item in blind:
        nothing = {**no_slots(), FEATURES: torch.zeros(0, model.encoder.feature_dim, dtype=dtype)}
        item.visual = {name: value.to(model.device) for name, value in nothing.items()}
    return looked
