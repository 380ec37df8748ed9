"""`blobs`: bodies that are drawn on a plain ground."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw

from umie.encoders.regions import registry


def boxes(image, **options):
    (found,) = registry.build("blobs", **options).propose([image])
    return [tuple(round(edge * side) for edge, side in zip(one.box, image.size * 2, strict=True)) for one in found]


def drawn(size, bodies, ground="white", color="black"):
    image = Image.new("RGB", size, ground)
    for x1, y1, x2, y2 in bodies:
        ImageDraw.Draw(image).rectangle((x1, y1, x2 - 1, y2 - 1), color)
    return image


def test_bodies_are_found_by_size():
    bodies = [(10, 10, 20, 20), (40, 10, 80, 40), (10, 50, 30, 70)]
    assert boxes(drawn((100, 80), bodies)) == [bodies[1], bodies[2], bodies[0]]
    assert boxes(drawn((100, 80), bodies), top=1) == [bodies[1]]
    assert boxes(drawn((100, 80), bodies), min_area=0.03) == [bodies[1], bodies[2]]
    assert boxes(drawn((100, 80), bodies, "black", "white")) == [bodies[1], bodies[2], bodies[0]]


def test_a_color_near_the_ground_is_ground():
    image = drawn((100, 80), [(10, 10, 30, 30)], (100, 100, 100), (100, 118, 100))
    assert boxes(image) == []
    assert boxes(image, threshold=15) == [(10, 10, 30, 30)]


def test_gaps_are_closed():
    image = drawn((100, 80), [(10, 10, 30, 20), (10, 22, 30, 30)])
    assert boxes(image, close=0) == [(10, 10, 30, 20), (10, 22, 30, 30)]
    assert boxes(image, close=0.03) == [(10, 10, 30, 30)]


def test_what_has_no_bodies():
    for ground in ("white", "gray"):
        assert boxes(Image.new("RGB", (50, 40), ground)) == []
    assert boxes(Image.new("RGB", (1, 1))) == []


def test_large_images_are_reduced():
    image = drawn((2000, 1000), [(200, 100, 600, 500)])
    assert boxes(image, max_side=100) == [(200, 100, 600, 500)]


@settings(max_examples=30)
@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 9), st.sampled_from([0, 0.05, 1]))
def test_any_image_has_boxes_inside(width, height, seed, close):
    pixels = np.random.default_rng(seed).integers(0, 2, (height, width, 3)) * 255
    (found,) = registry.build("blobs", close=close).propose([Image.fromarray(pixels.astype(np.uint8))])
    assert all(0 <= x1 < x2 <= 1 and 0 <= y1 < y2 <= 1 for x1, y1, x2, y2 in (one.box for one in found))


@pytest.mark.parametrize(
    ("options", "message"),
    [({"max_side": 1}, "max_side is 1"), ({"threshold": 0}, "threshold is 0"), ({"close": 2}, "close is 2")],
)
def test_options(error, options, message):
    assert message in error(registry.build, "blobs", **options)
