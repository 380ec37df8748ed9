"""torchvision's own ResNet-101 with telling weights, and the real images with their boxes."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torchvision.models import resnet101

from umie import data
from umie.encoders import registry
from umie.records.voc import pixel_region, read_voc

DATA = Path(__file__).resolve().parents[2].parent / "shared" / "data"
THIRDS = [(x / 3, y / 3, (x + 1) / 3, (y + 1) / 3) for y in range(3) for x in range(3)]


def reference_model(*, head=False):
    """A ResNet-101, its head on request, with statistics under which every layer counts and features stay near 1."""
    torch.manual_seed(0)
    model = resnet101()
    for name, module in model.named_modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(std=0.1)
            module.running_var.uniform_(0.5, 1.5)
            nn.init.constant_(module.weight, 0.2 if name.endswith("bn3") else 1.0)
    if not head:
        model.fc = nn.Identity()
    return model.eval()


def encoder_of(model, **options):
    """The encoder with the weights of a reference model."""
    encoder = registry.build("resnet101_roi", **options)
    encoder.load_tower(model.state_dict(), "reference")
    return encoder


@dataclasses.dataclass(frozen=True)
class Sample:
    """A real image with relative boxes of regions, and where they came from."""

    path: Path
    regions: list
    source: str


def real_images():
    """Every real image that is there: for tweets the boxes of VinVL or GMNER, M2E2's, or a grid of nine."""
    if not DATA.exists():
        pytest.skip(reason=f"the published images are not there: there is no {DATA}")
    return [*_twitter(), *_mnre(), *_m2e2()]


def _twitter():
    for path in sorted(DATA.glob("twitter_images/*.jpg")):
        with np.load(path.parent / "vinvl" / f"{path.name}.npz") as found:
            size = float(found["image_w"]), float(found["image_h"])
            yield Sample(path, [pixel_region(box, size) for box in found["bounding_boxes"].tolist()], "VinVL")
        if (drawn := read_voc(DATA / "gmner" / "xml" / f"{path.stem}.xml")) is not None:
            yield Sample(path, list(drawn), "GMNER")


def _mnre():
    for path in sorted(DATA.glob("mnre_images/*.jpg")):
        yield Sample(path, THIRDS, "a grid")


def _m2e2():
    folder = DATA / "m2e2"
    files = ("image_only_event.json", "image_multimedia_event.json")
    records = [record for file in files for record in data.read("m2e2", folder / file, images=folder / "images")]
    regions = {Path(record.image).name: list(record.regions) for record in records if record.image and record.regions}
    for path in sorted(folder.glob("images/*.jpg")):
        known = regions.get(path.name)
        yield Sample(path, known or THIRDS, "M2E2" if known else "a grid")
