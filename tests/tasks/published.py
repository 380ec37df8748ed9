"""The published data sets, which are not part of the project, if they are available."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest

from umie import data
from umie.records import Record

FOLDER = Path(__file__).resolve().parents[2].parent / "shared" / "data"
FILES = [
    ("twitter", "twitter2015/train.txt"),
    ("twitter", "twitter2015/valid.txt"),
    ("twitter", "twitter2017/train.txt"),
    ("twitter", "twitter2017/valid.txt"),
    ("twitter", "twitter2017/test.txt"),
    ("gmner", "gmner/txt/train.txt"),
    ("gmner", "gmner/txt/dev.txt"),
    ("mnre", "mnre_v1/ours_train.txt"),
    ("mnre", "mnre_v1/ours_val.txt"),
    ("mnre", "mnre_v2/train.txt"),
    ("mnre", "mnre_v2/val.txt"),
    ("mnre", "mnre_v2/test.txt"),
    ("m2e2", "m2e2/text_multimedia_event.json"),
    ("m2e2", "m2e2/image_only_event.json"),
    ("m2e2", "m2e2/image_multimedia_event.json"),
]
IMAGES = {"twitter": "twitter_images", "gmner": "twitter_images", "mnre": "mnre_images", "m2e2": "m2e2/images"}


@cache
def published(format_name: str, file: str) -> list[Record]:
    """Return the records of a published file; skip the test if the file is not available."""
    if not (FOLDER / file).exists():
        pytest.skip(reason=f"the published file {file} is not available")
    regions = FOLDER / "gmner/xml" if format_name == "gmner" else None
    images = FOLDER / IMAGES[format_name]
    return list(data.read(format_name, FOLDER / file, images=images, regions=regions))
