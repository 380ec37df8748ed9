"""`clip` on real images: a CNN, a ViT and a tower of timm give what open_clip's own transform and model give."""

from pathlib import Path

import numpy as np
import pytest
import torch

from umie.encoders import registry
from umie.encoders.tower import cut
from umie.images import open_image

DATA = Path(__file__).resolve().parents[2].parent / "shared" / "data"
TWITTER = ["153305", "1953977"]  # the second is an RGBA PNG under the name of a JPEG
PATHS = [
    *(DATA / "twitter_images" / f"{name}.jpg" for name in TWITTER),
    DATA / "m2e2" / "images" / "VOA_EN_NW_2009.12.09.416313_0.jpg",
]
pytestmark = pytest.mark.skipif(
    not all(path.exists() for path in PATHS),
    reason=f"reads real images below {DATA}, which are not part of the repository",
)
TOWERS = ["RN50", "ViT-B-32", "PE-Core-T-16-384"]  # the last is open_clip's smallest tower of timm


@pytest.fixture(scope="module", params=TOWERS)
def reference(request):
    """A model, its own way to prepare an image, and its image tower's weights, drawn from a fixed seed."""
    import open_clip

    torch.manual_seed(0)
    model, _, prepare = open_clip.create_model_and_transforms(request.param)
    return request.param, model.eval(), prepare


def same(found, expected):
    """Equal to 1e-5 of the largest feature: the features of some random towers are small; and images differ."""
    scale = float(expected.abs().max())
    torch.testing.assert_close(found, expected, atol=1e-5 * min(scale, 1), rtol=0)
    assert len(expected) == 1 or (expected[0] - expected[1]).abs().max() > 1e-3 * scale


@pytest.mark.slow
def test_whole_images_and_crops_are_open_clips(reference):
    name, model, prepare = reference
    encoder = registry.build("clip", model=name)
    encoder.load_tower(model.visual.state_dict(), name)
    boxes = [vinvl_boxes(word) for word in TWITTER] + [[]]
    found = encoder.encode(PATHS, boxes)
    assert found.mask.sum(1).tolist() == [3, 3, 1]
    with torch.no_grad():
        for row, path in enumerate(PATHS):
            image = open_image(path)  # open_clip itself would show what is transparent
            parts = [image, *(cut(image, box) for box in boxes[row])]
            same(found.features[row, : len(parts)], model.encode_image(torch.stack([prepare(part) for part in parts])))


@pytest.mark.slow
def test_squared_images_are_open_clips_when_pooled(reference):
    name, model, prepare = reference
    encoder = registry.build("clip", model=name, mode="pool")
    encoder.load_tower(model.visual.state_dict(), name)
    squared = [open_image(path).resize((400, 400)) for path in PATHS[:2]]
    images = [PATHS[2], *squared]  # one of another size in the batch
    found = encoder.encode(images, [vinvl_boxes("153305")] * 3)
    assert found.features.isfinite().all()
    assert found.features[:, 1:].any(dim=-1).all()
    with torch.no_grad():
        expected = model.encode_image(torch.stack([prepare(image) for image in squared]))
    same(found.features[1:, 0], expected)


def vinvl_boxes(name):
    """Return two boxes of an image as VinVL found them, relative."""
    width, height = open_image(DATA / "twitter_images" / f"{name}.jpg").size
    with np.load(DATA / "twitter_images" / "vinvl" / f"{name}.jpg.npz") as file:
        boxes = file["bounding_boxes"][:2] / np.array([width, height, width, height])
    return [tuple(map(float, box.clip(0, 1))) for box in boxes]
