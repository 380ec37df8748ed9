"""Records with several images: the slots of all images in one order, and batches of records with one and with several.

Each image is preprocessed and encoded by itself, as that of another record would be. The batch has the tensors of the
first images with the prefix ``image1.``, those of the second ones with ``image2.``, ..., and without a prefix what the
slots of a record are: ``boxes``, ``visual_mask`` and ``slot_sources [B, V, 2]``, the number of the image of each slot
(from 1; 0 for no slot) and the slot in it. Records with one image do not have these keys by themselves.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import accumulate

import torch
from torch import Tensor

from umie.types import FEATURES

SOURCES = "slot_sources"
_PREFIX = re.compile(r"image[1-9][0-9]*\.")


def image_key(number: int, name: str) -> str:
    """Return the batch key of a tensor of an image, by its number, from 1."""
    return f"image{number}.{name}"


def without_image(key: str) -> str:
    """Return a batch key without the number of an image."""
    return _PREFIX.sub("", key, count=1)


def joined(parts: Sequence[Mapping[str, Tensor]], images: Sequence[int]) -> dict[str, Tensor]:
    """Return the tensors of a record with several images.

    Its slots are the whole first image, the regions in the order of the record, the other whole images, and what else
    an encoder has (the tokens of captions). So slot k is region Ok, whatever its image. A region of an image without
    slots, which cannot be read, has an empty slot.

    Args:
        parts: the tensors of each image and its regions, from ``MediaPreprocessor.one``, or its features.
        images: the number of the image, from 0, of each region with a slot.
    """
    sizes = [len(part["visual_mask"]) for part in parts]
    used = [0] * len(parts)
    regions = []
    for image in images:
        used[image] += 1
        regions.append((image, used[image]))
    others = [(image, 0) for image in range(1, len(parts)) if sizes[image]]
    further = [(image, slot) for image, size in enumerate(sizes) for slot in range(1 + used[image], size)]
    ordered = [(0, 0), *regions, *others, *further]
    slots = [(image + 1, slot) if slot < sizes[image] else (0, 0) for image, slot in ordered]
    while slots and slots[-1] == (0, 0):
        slots.pop()
    sources = torch.tensor(slots, dtype=torch.long).reshape(-1, 2)
    own = [name for name in ("boxes", "visual_mask", FEATURES) if name in parts[0]]
    found = {name: in_order([part[name][None] for part in parts], sources[None])[0] for name in own}
    if FEATURES not in found:
        found |= {image_key(number, name): part[name] for number, part in enumerate(parts, 1) for name in part}
    return {**found, SOURCES: sources}


def in_order(parts: Sequence[Tensor], sources: Tensor) -> Tensor:
    """Return ``[B, V, ...]``, the values of slots from those of each image, ``[B, Vn, ...]``; 0 for no slot.

    Args:
        parts: the values of the slots of each image.
        sources: ``slot_sources [B, V, 2]``.
    """
    no_slot = parts[0].new_zeros(len(sources), 1, *parts[0].shape[2:])
    starts = accumulate((part.shape[1] for part in parts), initial=1)
    number, slot = sources.unbind(-1)
    places = sources.new_tensor([0, *starts][:-1])[number] + slot
    places = places.reshape(*places.shape, *[1] * (no_slot.ndim - 2)).expand(-1, -1, *no_slot.shape[2:])
    return torch.cat([no_slot, *parts], dim=1).gather(1, places)


def alike(items: Sequence[Mapping[str, Tensor]]) -> Sequence[Mapping[str, Tensor]]:
    """Return the tensors of records of which some have several images, all with the same keys; others as they are."""
    several = [item for item in items if SOURCES in item]
    if not several:
        return items
    known = {name: tensor for item in several for name, tensor in item.items()}
    return [_like(known, item) for item in items]


def _like(known: Mapping[str, Tensor], item: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors of a record with the keys of ``known``: its own, and those of images that it does not have."""
    found = dict(item)
    if SOURCES not in found:
        slots = torch.arange(len(found["visual_mask"]))
        found[SOURCES] = torch.stack([torch.ones_like(slots), slots], dim=1)
        for name in known:
            own = without_image(name)
            if name == image_key(1, own):
                found[name] = found[own] if own in known else found.pop(own)
    missing = {name: tensor.new_zeros([0] * tensor.ndim) for name, tensor in known.items() if name not in found}
    return {**found, **missing}
