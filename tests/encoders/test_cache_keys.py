"""Keys of the feature cache: all that features depend on is in them, and nothing else."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from umie.encoders.cache.cached_encoder import feature_key
from umie.images import UPRIGHT, image_digest, open_image


@pytest.fixture(scope="module")
def images(noise):
    return [noise(60, 40, seed) for seed in range(4)]


def test_a_file_is_its_bytes(tmp_path, images):
    first, second = tmp_path / "first.png", tmp_path / "second.png"
    images[0].save(first)
    second.write_bytes(first.read_bytes())
    assert image_digest(first) == image_digest(str(second))
    second.write_bytes(first.read_bytes() + b"\0")
    assert image_digest(first) != image_digest(second)


def test_pixels_and_size_are_in_the_digest(images):
    flat = Image.frombytes("RGB", (6, 4), bytes(range(72)))
    others = [Image.frombytes("RGB", (4, 6), flat.tobytes())]
    changed = flat.copy()
    changed.putpixel((5, 3), (0, 0, 0))
    others += [changed, flat.convert("L"), *images]
    digests = [image_digest(image) for image in [flat, *others]]
    assert len(set(digests)) == len(digests)
    assert image_digest(flat.copy()) == digests[0]


def with_orientation(turn):
    image = Image.frombytes("RGB", (6, 4), bytes(range(72)))
    image.getexif()[0x0112] = turn
    return image


def palette(**info):
    image = Image.frombytes("P", (2, 2), bytes([0, 1, 1, 0]))
    image.putpalette([255, 0, 0, 0, 255, 0])
    image.info |= info
    return image


def other_palette():
    image = palette()
    image.putpalette([255, 0, 0, 0, 0, 255])
    return image


def test_all_that_is_displayed_is_in_the_digest():
    """What ``open_image`` honours changes the digest: orientation, palette, transparency, depth."""
    variants = [with_orientation(turn) for turn in (1, *UPRIGHT)]
    variants += [palette(), other_palette(), palette(transparency=0)]
    variants += [Image.frombytes("RGBA", (1, 1), bytes([9, 9, 9, alpha])) for alpha in (0, 100, 255)]
    displayed = [open_image(image) for image in variants]
    digests = [image_digest(image) for image in variants]
    for (first, one), (second, other) in itertools.combinations(zip(displayed, digests, strict=True), 2):
        same_pixels = (first.size, first.tobytes()) == (second.size, second.tobytes())
        assert (one == other) == same_pixels
    assert len(set(digests)) == len(digests)


boxes_of = st.lists(st.tuples(*[st.floats(0, 1)] * 4), max_size=4)


@given(
    st.lists(st.tuples(st.text(max_size=3), st.text(max_size=3), boxes_of), min_size=2, max_size=5, unique_by=repr),
)
def test_keys_differ_where_anything_differs(parts):
    keys = {}
    for fingerprint, digest, boxes in parts:
        key = feature_key(fingerprint, digest, boxes)
        assert len(key) == 64
        assert keys.setdefault(key, (fingerprint, digest, boxes)) == (fingerprint, digest, boxes)


def test_equal_boxes_have_one_key():
    assert feature_key("a", "b", [(0, 0, 1, 1)]) == feature_key("a", "b", [(-0.0, 0.0, 1.0, 1.0)])
