"""COCO's annotation files and detection results as regions by image."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from umie.errors import UmieError, shown

_NUMBERED = re.compile(r"(?:COCO_\w+_)?0*(\d+)")  # names of images that contain their id, as those of COCO


def coco_regions(content: object) -> dict[str, Any] | None:
    """Return the regions of each image, in the JSON form of the proposer ``file``; None if the content is not COCO's.

    Source: the data format of cocodataset.org. An annotation file is an object with ``images`` (``id``, ``file_name``,
    ``width``, ``height``), ``annotations`` (``image_id``, ``bbox``, ``category_id``) and ``categories``; a file of
    detection results is a list of ``image_id``, ``bbox``, ``category_id`` and ``score``. Boxes are x, y, width and
    height in pixels. Keys are the names of the images, or their ids in detection results, which have no names.

    Raises:
        UmieError: an item is malformed, or two images have the same name.
    """
    if isinstance(content, list):
        if not content or not all(isinstance(item, Mapping) and "image_id" in item for item in content):
            return None
        return _by_image(content, {}, {})
    if not isinstance(content, Mapping) or not all(isinstance(content.get(key), list) for key in _LISTS):
        return None
    images: dict[Any, dict[str, Any]] = {}
    names: dict[Any, str] = {}
    for item in content["images"]:
        identifier, name = _value(item, "id", "image"), _value(item, "file_name", "image")
        names[identifier] = Path(str(name)).name
        images[identifier] = {key: item[key] for key in ("width", "height") if item.get(key)}
    if len(set(names.values())) < len(names):
        raise UmieError("two images have the same file name: use one annotation file per directory of images")
    listed = content.get("categories")
    categories = {
        _value(item, "id", "category"): item.get("name") for item in (listed if isinstance(listed, list) else ())
    }
    found = _by_image(content["annotations"], categories, names)
    return {name: {"regions": [], **images[identifier], **found.get(name, {})} for identifier, name in names.items()}


_LISTS = ("images", "annotations")


def id_in_name(stem: str) -> str | None:
    """Return the id in the name of an image, if it is a number (``000000000042``, ``COCO_val2014_000000000042``)."""
    match = _NUMBERED.fullmatch(stem)
    return None if match is None else match[1]


def _by_image(items: list[Any], categories: Mapping[Any, Any], names: Mapping[Any, str]) -> dict[str, Any]:
    regions: dict[str, Any] = {}
    for item in items:
        identifier = _value(item, "image_id", "annotation")
        if names and identifier not in names:
            raise UmieError(f"an annotation is of image {shown(identifier)}, which is not in the list of images")
        category = item.get("category_id")
        label = categories.get(category) if isinstance(category, int | str) else None
        region = {"box": _value(item, "bbox", "annotation"), "label": label, "score": item.get("score")}
        regions.setdefault(names.get(identifier, str(identifier)), {"regions": []})["regions"].append(region)
    return regions


def _value(item: Any, key: str, kind: str) -> Any:
    value = item.get(key) if isinstance(item, Mapping) else None
    is_id = key.endswith("id") and type(value) in (int, str)
    if not (is_id or (key == "file_name" and isinstance(value, str)) or (key == "bbox" and isinstance(value, list))):
        raise UmieError(f"{kind} {shown(item)} has no valid {key!r}: expected the format of COCO")
    return value
