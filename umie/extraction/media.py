"""The media of records, encoded once for the queries of all tasks."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field

import torch
from torch import Tensor

from umie.encoders.base import collate, no_slots
from umie.encoders.several_images import SOURCES
from umie.errors import UmieError, at
from umie.extraction.result import Notice
from umie.images import open_image
from umie.media import open_clip
from umie.model import UmieModel
from umie.processor import UmieProcessor
from umie.records import MEDIA, Medium, Record
from umie.records.places import PLACES, PLURALS
from umie.types import FEATURES, key_of, medium_of

SKIPPED = "; the record was skipped"  # the end of the notice about an image with the policy skip


@dataclass
class EncodedMedia:
    """The input from media shared by all queries about a record, and warnings about media and places.

    Its tensors are ``boxes [V, 4]``, ``visual_mask [V]`` and ``visual_features [V, Dv]``, with several images also
    ``slot_sources [V, 2]``, those of videos and sounds with a prefix; none for a model without encoders, and None if
    the record is skipped because an image cannot be read.
    """

    tensors: dict[str, Tensor] | None
    notices: list[Notice] = field(default_factory=list)


@torch.no_grad()
def encode_media(
    model: UmieModel,
    processor: UmieProcessor,
    records: Sequence[Record],
    missing_images: str,
    places: Sequence[str | None],
) -> list[EncodedMedia]:
    """Encode the images of several records in one forward pass; they must fit into memory together.

    Args:
        model: the model.
        processor: its processor; its own ``missing_images`` must be ``error``.
        records: the records.
        missing_images: how to treat an image that cannot be read; see UmieProcessor.
        places: for each record a prefix of its error messages, or None.

    Raises:
        UmieError: an image cannot be read and ``missing_images`` is ``error``, or a path leaves its image folder.
    """
    encoded = []
    for record, place in zip(records, places, strict=True):
        with nullcontext() if place is None else at(place):
            encoded.append(_preprocess(model, processor, record, missing_images))
    for medium in model.media_encoders:
        _compute_features(model, medium, encoded)
    return encoded


def image_sizes(record: Record) -> tuple[tuple[int, int] | None, ...]:
    """Return width and height of each of a record's images in pixels as displayed; None if it cannot be read."""
    return tuple(_image_size(record, number) for number in range(len(record.images)))


def _image_size(record: Record, number: int) -> tuple[int, int] | None:
    try:
        return open_image(record.resolved("image", number)).size
    except UmieError:
        return None


def video_size(record: Record) -> tuple[int, int] | None:
    """Return width and height of a record's video in pixels as displayed; None if it cannot be read."""
    try:
        return open_clip(record.resolved("video"), 1).frames[0].size
    except UmieError:
        return None


def _preprocess(model: UmieModel, processor: UmieProcessor, record: Record, missing_images: str) -> EncodedMedia:
    for medium, number in record.numbered_media:
        record.path(medium, number)  # a path that leaves its folder is an error under every policy
    tensors: dict[str, Tensor] = {}
    notices = []
    for medium in MEDIA:
        kind, number = PLACES[medium], len(record.places(medium))
        if medium not in model.media_encoders:
            if medium in record.media:
                notices.append(Notice(medium, f"this variant does not use {PLURALS[medium]}"))
            continue
        limit = getattr(processor.preprocessors[medium].config, "max_regions", number)
        if number and medium not in record.media:
            few = f"1 {kind[:-1]} was" if number == 1 else f"{number} {kind} were"
            notices.append(Notice(kind, f"{few} ignored: the record has no {medium}"))
        elif number > limit:
            notices.append(Notice(kind, f"only the first {limit} of {number} {kind} were used"))
        unreadable: list[UmieError] = []
        report = None if missing_images == "error" else unreadable.append
        own = processor.encode_medium(medium, record, on_unreadable=report)
        if unreadable and missing_images == "skip":
            return EncodedMedia(None, [Notice(medium, f"{unreadable[0]}{SKIPPED}")])
        has_none = int(own["visual_mask"].sum()) <= len(record.of(medium))  # each is seen as a whole
        if has_none and not (number or unreadable) and medium in record.media and medium in processor.trained_places:
            message = f"the model was trained with {kind} of {PLURALS[medium]}, and this record has none"
            notices.append(
                Notice("places", f"{message}: pass them ({kind}=, --{kind[:-1]}), or let umie data {kind} find some")
            )
        if unreadable:
            others = ["other images"] if len(unreadable) < len(record.of(medium)) else []
            others += [other for other in record.media if other != medium and other in model.media_encoders]
            rest = " and ".join(["the text", *others]) if others else "the text only"
            notices += [Notice(medium, f"{reason}; answered from {rest}") for reason in unreadable]
        tensors |= {key_of(medium, name): tensor for name, tensor in own.items()}
    return EncodedMedia(tensors, notices)


def _compute_features(model: UmieModel, medium: Medium, images: Sequence[EncodedMedia]) -> None:
    """Replace a preprocessed medium with its features, so that the encoder runs once for the queries of all tasks."""
    own = [
        (image, {key: tensor for key, tensor in image.tensors.items() if medium_of(key) == medium})
        for image in images
        if image.tensors is not None
    ]
    mask_key, features_key = key_of(medium, "visual_mask"), key_of(medium, FEATURES)
    with_slots = [tensors for _, tensors in own if len(tensors[mask_key])]
    features: Sequence[Tensor] = ()
    if with_slots and features_key in with_slots[0]:  # features come from a cache
        features = [tensors[features_key] for tensors in with_slots]
    elif with_slots:
        batch = {key: value.to(model.device) for key, value in collate(with_slots).items()}
        encoded = model.encode_medium(medium, batch)
        features = [] if encoded is None else list(encoded.features)
    dtype = features[0].dtype if len(features) else next(model.parameters()).dtype
    width = model.media_encoders[medium].feature_dim
    rows = iter(features)
    kept = (*(key_of(medium, name) for name in no_slots(medium)), SOURCES)
    for image, tensors in own:
        num_slots = len(tensors[mask_key])
        row = next(rows)[:num_slots] if num_slots else torch.zeros(0, width, dtype=dtype)
        others = {key: value for key, value in (image.tensors or {}).items() if key not in tensors}
        found = {**{key: tensors[key] for key in kept if key in tensors}, features_key: row}
        image.tensors = others | {key: value.to(model.device) for key, value in found.items()}
