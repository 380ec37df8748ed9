import pickle

import pytest
import torch
from PIL import Image

from umie.encoders import registry
from umie.errors import UmieError
from umie.media import Clip
from umie.records import Track

LEFT, RIGHT = (0.0, 0.0, 0.5, 1.0), (0.5, 0.0, 1.0, 1.0)


@pytest.fixture(scope="module")
def encoder():
    torch.manual_seed(0)
    return registry.build("tiny", crop_size=4, feature_dim=16)


@pytest.fixture(scope="module")
def images():
    two = Image.new("RGB", (40, 20), "red")
    two.paste("blue", (20, 0, 40, 20))
    return [two, Image.new("RGB", (7, 33), "green"), None]


def test_shapes_order_and_mask(encoder, images):
    found = encoder.encode(images, [[LEFT, RIGHT], [RIGHT], []])
    assert found.features.shape == (3, 3, encoder.feature_dim)
    assert found.mask.tolist() == [[True] * 3, [True, True, False], [False] * 3]
    assert found.boxes.tolist() == [
        [[0, 0, 1, 1], list(LEFT), list(RIGHT)],
        [[0, 0, 1, 1], list(RIGHT), [0, 0, 0, 0]],
        [[0, 0, 0, 0]] * 3,
    ]
    assert not found.features[~found.mask].any()
    swapped = encoder.encode(images[:1], [[RIGHT, LEFT]])
    torch.testing.assert_close(found.features[0], swapped.features[0, [0, 2, 1]])


def test_crops_are_the_pixels(encoder, images):
    crops = encoder.preprocess(images[:1], [[LEFT, RIGHT]])["crops"]
    assert crops.shape == (1, 3, 3, 4, 4)
    assert crops[0, 1, :, 2, 2].tolist() == [1, -1, -1]
    assert crops[0, 2, :, 2, 2].tolist() == [-1, -1, 1]


def test_batch_invariance(encoder, images):
    regions = [[LEFT, RIGHT], [RIGHT], []]
    together = encoder.encode(images, regions).features
    for row, (image, boxes) in enumerate(zip(images, regions, strict=True)):
        single = encoder.encode([image], [boxes]).features[0]
        torch.testing.assert_close(together[row, : len(single)], single, atol=1e-5, rtol=0)


def test_no_image_at_all(encoder):
    found = encoder.encode([None, None])
    assert found.features.shape == (2, 0, 16)
    assert found.mask.shape == (2, 0)


def test_regions_beyond_36_are_left_out(encoder, images):
    assert encoder.encode(images[:1], [[LEFT] * 50]).mask.shape == (1, 37)


def test_trainable_or_frozen(images):
    learns = registry.build("tiny")
    learns.encode(images).features.sum().backward()
    assert all(parameter.grad.isfinite().all() for parameter in learns.parameters())
    frozen = registry.build("tiny", trainable=False)
    assert not frozen.encode(images).features.requires_grad


def test_preprocessor_pickles(encoder, images):
    copy = pickle.loads(pickle.dumps(encoder.preprocess))  # noqa: S301 # what a data worker does
    for name, value in encoder.preprocess(images).items():
        assert torch.equal(copy(images)[name], value)


@pytest.mark.parametrize("option", [{"crop_size": 0}, {"feature_dim": -1}, {"max_regions": -1}])
def test_bad_options(option):
    name, value = next(iter(option.items()))
    with pytest.raises(UmieError, match=f"{name} is {value}"):
        registry.build("tiny", **option)


def test_bad_boxes_and_counts(encoder, images):
    with pytest.raises(UmieError, match="not inside the image"):
        encoder.encode(images[:1], [[(0.5, 0, 0.5, 1)]])
    with pytest.raises(UmieError, match="2 lists of regions for 3 images"):
        encoder.encode(images, [[], []])


def test_a_track_moves_in_units_of_its_first_box(noise):
    """The same motion, in its own widths and heights, of a large and of a small body."""
    clip = Clip(tuple(noise(60, 40, seed) for seed in range(3)), (0, 0.5, 1), 1.5)
    large = Track((0, 1), ((0.1, 0.1, 0.5, 0.3), (0.3, 0.1, 0.7, 0.3)))
    small = Track((0, 1), ((0.1, 0.1, 0.2, 0.15), (0.15, 0.1, 0.25, 0.15)))
    paths = registry.build("tiny_video").preprocess.one(clip, [large, small])["paths"]
    assert paths[0].count_nonzero() == 0  # the whole clip
    torch.testing.assert_close(paths[1], paths[2])
    torch.testing.assert_close(paths[1, :, 0], torch.linspace(0, 0.5, 8))
    assert paths[1, :, 1].count_nonzero() == 0
