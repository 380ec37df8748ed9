"""The media of records, encoded once for the queries of all tasks."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field

import torch
from torch import Tensor

from umie.encoders.base import collate, no_slots
from umie.errors import UmieError, at
from umie.extraction.result import Notice
from umie.images import open_image
from umie.model import UmieModel
from umie.processor import UmieProcessor
from umie.records import MEDIA, Medium, Record
from umie.records.places import PLACES, PLURALS
from umie.types import FEATURES, key_of

SKIPPED = "; the record was skipped"  # the end of the notice about an image with the policy skip


@dataclass
class EncodedImage:
    """The input from media shared by all queries about a record, and warnings about media and places.

    Its tensors are ``boxes [V, 4]``, ``visual_mask [V]`` and ``visual_features [V, Dv]``, those of videos and sounds
    with a prefix; none for a model without encoders, and None if the record is skipped because an image cannot be read.
    """

    tensors: dict[str, Tensor] | None
    notices: list[Notice] = field(default_factory=list)


@torch.no_grad()
def encode_images(
    model: UmieModel,
    processor: UmieProcessor,
    records: Sequence[Record],
    missing_images: str,
    places: Sequence[str | None],
) -> list[EncodedImage]:
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


def image_size(record: Record) -> tuple[int, int] | None:
    """Return the width and height of a record's image in pixels as displayed, or None if it cannot be read."""
    try:
        path = record.image_path()
        image = record.image if path is None else path
        return None if image is None else open_image(image).size
    except UmieError:
        return None


def _preprocess(model: UmieModel, processor: UmieProcessor, record: Record, missing_images: str) -> EncodedImage:
    for medium in record.media:
        record.path(medium)  # a path that leaves its folder is an error under every policy
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
            notices.append(Notice(kind, f"{number} {kind} were ignored: the record has no {medium}"))
        elif number > limit:
            notices.append(Notice(kind, f"only the first {limit} of {number} {kind} were used"))
        try:
            own = processor.encode_medium(medium, record)
        except UmieError as error:
            if missing_images == "error":
                raise
            reason = error.__cause__ if isinstance(error.__cause__, UmieError) else error
            if missing_images == "skip":
                return EncodedImage(None, [Notice(medium, f"{reason}{SKIPPED}")])
            others = [other for other in record.media if other != medium and other in model.media_encoders]
            rest = " and ".join(["the text", *others]) if others else "the text only"
            notices.append(Notice(medium, f"{reason}; answered from {rest}"))
            own = processor.preprocessors[medium].nothing()
        tensors |= {key_of(medium, name): tensor for name, tensor in own.items()}
    return EncodedImage(tensors, notices)


def _compute_features(model: UmieModel, medium: Medium, images: Sequence[EncodedImage]) -> None:
    """Replace a preprocessed medium with its features, so that the encoder runs once for the queries of all tasks."""
    encoder = model.media_encoders[medium]
    names = {name: key_of(medium, name) for name in (*encoder.preprocess.nothing(), FEATURES)}
    used = [
        (image, {name: image.tensors[key] for name, key in names.items() if key in image.tensors})
        for image in images
        if image.tensors is not None
    ]
    with_slots = [tensors for _, tensors in used if len(tensors["visual_mask"])]
    features: Sequence[Tensor] = ()
    if with_slots and FEATURES in with_slots[0]:  # features come from a cache
        features = [tensors[FEATURES] for tensors in with_slots]
    elif with_slots:
        features = encoder(**{name: value.to(model.device) for name, value in collate(with_slots).items()}).features
    dtype = features[0].dtype if len(features) else next(model.parameters()).dtype
    rows = iter(features)
    for image, tensors in used:
        num_slots = len(tensors["visual_mask"])
        row = next(rows)[:num_slots] if num_slots else torch.zeros(0, encoder.feature_dim, dtype=dtype)
        kept = {**{name: tensors[name] for name in no_slots(medium)}, FEATURES: row}
        others = {key: value for key, value in (image.tensors or {}).items() if key not in names.values()}
        image.tensors = others | {key_of(medium, name): value.to(model.device) for name, value in kept.items()}
