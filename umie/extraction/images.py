"""The images of records, encoded once for the queries of all tasks."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from umie.encoders.base import collate, no_slots
from umie.errors import UmieError, at
from umie.extraction.result import Notice
from umie.images import open_image
from umie.model import UmieModel
from umie.processor import UmieProcessor
from umie.records import Record
from umie.types import FEATURES

SKIPPED = "; the record was skipped"  # the end of the notice about an image with the policy skip


@dataclass
class EncodedImage:
    """The visual input shared by all queries about a record, and warnings about its image and regions.

    Its tensors are ``boxes [V, 4]``, ``visual_mask [V]`` and ``visual_features [V, Dv]``; none for a model without an
    encoder, and None if the record is skipped because its image cannot be read.
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
    if model.encoder is not None:
        _compute_features(model, model.encoder.feature_dim, encoded)
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
    record.image_path()  # a path that leaves its folder is an error under every policy
    if model.encoder is None:
        return EncodedImage({}, [] if record.image is None else [Notice("image", "this variant does not use images")])
    notices = []
    limit = getattr(processor.preprocessor.config, "max_regions", len(record.regions))
    if record.regions and record.image is None:
        notices.append(Notice("regions", f"{len(record.regions)} regions were ignored: the record has no image"))
    elif len(record.regions) > limit:
        notices.append(Notice("regions", f"only the first {limit} of {len(record.regions)} regions were used"))
    try:
        return EncodedImage(processor.encode_image(record), notices)
    except UmieError as error:
        if missing_images == "error":
            raise
        reason = error.__cause__ if isinstance(error.__cause__, UmieError) else error
    if missing_images == "skip":
        return EncodedImage(None, [Notice("image", f"{reason}{SKIPPED}")])
    notice = Notice("image", f"{reason}; answered from the text only")
    return EncodedImage(processor.encode_image(replace(record, image=None)), [*notices, notice])


def _compute_features(model: UmieModel, feature_dim: int, images: Sequence[EncodedImage]) -> None:
    """Replace preprocessed images with their features, so that the encoder runs once for the queries of all tasks."""
    used = [(image, image.tensors) for image in images if image.tensors is not None]
    with_slots = [tensors for _, tensors in used if len(tensors["visual_mask"])]
    features: Sequence[Tensor] = ()
    if with_slots and FEATURES in with_slots[0]:  # features come from a cache
        features = [tensors[FEATURES] for tensors in with_slots]
    elif with_slots:
        inputs = {name: value.to(model.device) for name, value in collate(with_slots).items()}
        features = model.encoder(**inputs).features  # type: ignore[misc] # called only for a model with an encoder
    dtype = features[0].dtype if len(features) else next(model.parameters()).dtype
    rows = iter(features)
    for image, tensors in used:
        num_slots = len(tensors["visual_mask"])
        row = next(rows)[:num_slots] if num_slots else torch.zeros(0, feature_dim, dtype=dtype)
        kept = {**{name: tensors[name] for name in no_slots()}, FEATURES: row}
        image.tensors = {name: value.to(model.device) for name, value in kept.items()}
