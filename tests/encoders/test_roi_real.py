"""ResNet-101 on real images with real boxes, against torchvision's own model run crop by crop."""

import pytest
import torch
from PIL import Image
from roi_samples import encoder_of, real_images, reference_model
from torchvision.models import ResNet101_Weights
from torchvision.ops import roi_align
from torchvision.transforms import Compose, InterpolationMode, Normalize, Resize, ToTensor

from umie.images import open_image
from umie.records import Region

WHOLE = (0.0, 0.0, 1.0, 1.0)


@pytest.fixture(scope="module")
def reference():
    return reference_model()


@pytest.fixture(scope="module")
def samples():
    return real_images()


def boxes_of(sample, most=36):
    return [region.box if isinstance(region, Region) else region for region in sample.regions[:most]]


def crop_by_crop(reference, path, boxes):
    """What torchvision makes of every crop, one at a time; transparency is laid on white."""
    published = ResNet101_Weights.IMAGENET1K_V1.transforms()
    prepare = Compose(
        [Resize((224, 224), InterpolationMode.BILINEAR), ToTensor(), Normalize(published.mean, published.std)]
    )
    image = Image.open(path)
    if image.mode == "RGBA":
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    image = image.convert("RGB")
    scale = (image.width, image.height) * 2
    found = []
    for box in [WHOLE, *boxes]:
        x1, y1, x2, y2 = (round(edge * side) for edge, side in zip(box, scale, strict=True))
        with torch.no_grad():
            found.append(reference(prepare(image.crop((x1, y1, x2, y2)))[None])[0])
    return torch.stack(found)


def close(found, expected):
    torch.testing.assert_close(found, expected, atol=1e-5 * float(expected.abs().max()), rtol=1e-5)


def check_crops(reference, samples, most):
    """The whole batch at once, of images that differ in size and in their number of boxes."""
    boxes = [boxes_of(sample, most - row % 2) for row, sample in enumerate(samples)]
    found = encoder_of(reference, mode="crop").encode([sample.path for sample in samples], boxes)
    assert found.mask.sum(1).tolist() == [len(kept) + 1 for kept in boxes]
    for row, (sample, kept) in enumerate(zip(samples, boxes, strict=True)):
        close(found.features[row, : len(kept) + 1], crop_by_crop(reference, sample.path, kept))
        assert not found.features[row, len(kept) + 1 :].any()
        torch.testing.assert_close(found.boxes[row, : len(kept) + 1], torch.tensor([WHOLE, *kept]), atol=1e-7, rtol=0)


def check_align(reference, samples, most, short_side):
    """In one batch: the image's mean, also of a region around it, each region's place, and no other order."""
    boxes = [[WHOLE, *boxes_of(sample, most - 1 - row % 2)] for row, sample in enumerate(samples)]
    encoder = encoder_of(reference, mode="align", short_side=short_side)
    inputs = encoder.preprocess([sample.path for sample in samples], boxes)
    found = encoder(**inputs)
    assert len({tuple(size) for size in inputs["image_size"].tolist()}) > 1
    assert found.mask.sum(1).tolist() == [len(kept) + 1 for kept in boxes]
    backbone = torch.nn.Sequential(*list(reference.children())[:-2])
    for row, kept in enumerate(boxes):
        height, width = inputs["image_size"][row]
        with torch.no_grad():
            maps = backbone(inputs["pixels"][row : row + 1, :, :height, :width])
        slots = found.features[row, : len(kept) + 1]
        close(slots[0], maps.mean((2, 3))[0])
        close(slots[1], maps.mean((2, 3))[0])
        sides = torch.tensor([maps.shape[3], maps.shape[2]] * 2)
        dense = roi_align(maps, [torch.tensor(kept) * sides], 7, sampling_ratio=8, aligned=True).mean((2, 3))
        torch.testing.assert_close(slots[1:], dense, atol=2e-3 * float(maps.abs().max()), rtol=0)
        assert not found.features[row, len(kept) + 1 :].any()


def few(samples):
    """One image of every source with boxes, the smallest, which costs the least to read."""
    sources = [[sample for sample in samples if sample.source == source] for source in ("VinVL", "GMNER", "M2E2")]
    return [min(found, key=lambda sample: sample.path.stat().st_size) for found in sources if found]


def test_crops_of_real_images(reference, samples):
    check_crops(reference, few(samples), most=2)


def test_align_of_real_images(reference, samples):
    check_align(reference, few(samples), most=36, short_side=96)


@pytest.mark.slow
def test_crops_of_every_real_image(reference, samples):
    check_crops(reference, samples, most=36)


@pytest.mark.slow
def test_align_of_every_real_image(reference, samples):
    check_align(reference, samples, most=36, short_side=320)


@pytest.mark.slow
def test_every_real_image_is_prepared_with_its_boxes(reference, samples):
    """Only sizes and boxes, of all of them: nothing runs through the network."""
    assert len({sample.path for sample in samples}) >= 27
    preprocess = encoder_of(reference, mode="align", short_side=64).preprocess
    for sample in samples:
        one = preprocess.one(sample.path, sample.regions)
        width, height = open_image(sample.path).size
        rows, columns = one["image_size"].tolist()
        assert min(rows, columns) == 64
        assert abs(columns / rows - width / height) < 0.02 * width / height
        assert one["boxes"].shape == (1 + min(36, len(sample.regions)), 4)
