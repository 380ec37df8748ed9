"""`blobs` and `boxes_iou`: bodies whose paths are known, and what links them."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageDraw

from umie.encoders.tracks import registry
from umie.encoders.tracks.linking import link
from umie.errors import UmieError
from umie.media import Clip
from umie.records.overlap import place_iou

SIZE = (120, 80)


def clip(*paths, ground="white", frames=8, draw=None):
    """A clip of bodies of 16 x 12 pixels, whose left and top edges are given for each frame, None where hidden."""
    images = []
    for number in range(frames):
        image = Image.new("RGB", SIZE, ground) if draw is None else draw(number)
        for color, path in zip(("black", "blue", "darkred"), paths, strict=False):
            if path[number] is not None:
                x, y = path[number]
                ImageDraw.Draw(image).rectangle((x, y, x + 15, y + 11), color)
        images.append(image)
    times = tuple(number / 8 for number in range(frames))
    return Clip(tuple(images), times, frames / 8)


def pixels(track):
    """The boxes of a track in pixels, by frame."""
    edges = [[round(edge * side) for edge, side in zip(box, SIZE * 2, strict=True)] for box in track.boxes]
    return {round(time * 8): tuple(box) for time, box in zip(track.times, edges, strict=True)}


def straight(start, step, frames=8):
    return [(start[0] + step[0] * number, start[1] + step[1] * number) for number in range(frames)]


RIGHT, DOWN = straight((5, 5), (10, 0)), straight((20, 20), (0, 5))


def test_bodies_are_followed():
    found = registry.build("blobs").propose(clip(RIGHT, straight((20, 60), (2, 0))))
    assert len(found) == 2
    for track, path in zip(found, (RIGHT, straight((20, 60), (2, 0))), strict=True):
        assert pixels(track) == {number: (x, y, x + 16, y + 12) for number, (x, y) in enumerate(path)}


def test_a_body_may_be_missed_for_some_frames():
    path = [None if number in (3, 4) else place for number, place in enumerate(straight((5, 5), (3, 0)))]
    (track,) = registry.build("blobs").propose(clip(path))
    assert list(pixels(track)) == [0, 1, 2, 5, 6, 7]
    assert len(registry.build("blobs", max_gap=1).propose(clip(path))) == 2


def test_short_tracks_are_left_out():
    path = [place if number < 2 else None for number, place in enumerate(RIGHT)]
    assert registry.build("blobs").propose(clip(path)) == []
    assert len(registry.build("blobs", min_frames=2).propose(clip(path))) == 1
    assert len(registry.build("blobs").propose(clip(RIGHT, frames=1))) == 1  # a still image


def test_a_camera_that_does_not_move(noise):
    """A patterned ground has no color of its own, so bodies are what is not there most of the time."""
    background = noise(*SIZE)
    moving = clip(straight((5, 5), (13, 3)), draw=lambda number: background.copy())
    (track,) = registry.build("blobs", threshold=60).propose(moving)
    assert len(track.times) >= 7
    assert len(registry.build("blobs", background="ground", threshold=60).propose(moving)) != 1


def test_tracks_are_those_of_the_first_size():
    first, second = clip(DOWN).frames[0], clip(DOWN).frames[1]
    frames = (first, second.resize((240, 160)), *clip(DOWN).frames[2:])
    (track,) = registry.build("blobs").propose(Clip(frames, clip(DOWN).times, 1))
    assert list(pixels(track)) == list(range(8))


@pytest.mark.parametrize("name", ["blobs", "boxes_iou"])
def test_a_black_clip(name):
    black = Clip((Image.new("RGB", (1, 1)),) * 3, (0, 1, 2), 3)
    for track in registry.build(name).propose(black):
        assert track.interval == (0, 2)  # cells of the grid


def test_boxes_of_a_region_proposer_are_linked():
    options = {"proposer": {"name": "blobs"}, "min_iou": 0.1}
    slow = clip(straight((5, 5), (3, 0)), straight((80, 20), (0, 4)))
    found = registry.build("boxes_iou", **options).propose(slow)
    expected = registry.build("blobs").propose(slow)
    assert [max(place_iou(track, other) for other in found) for track in expected] == [pytest.approx(1)] * 2
    assert registry.build("boxes_iou", **(options | {"min_iou": 0.9})).propose(slow) == []  # they move too fast


def test_labels_are_linked_apart(monkeypatch):
    """One place with two names in turn is two tracks."""
    from umie.encoders.regions import Proposal

    proposer = registry.build("boxes_iou", max_gap=1, nms=1)
    names = iter(["cat", "dog"] * 4)
    box = (0.1, 0.1, 0.5, 0.5)
    monkeypatch.setattr(
        proposer.regions, "propose", lambda images, texts: [[Proposal(box, 0.5, next(names))] for _ in images]
    )
    found = proposer.propose(clip(RIGHT))
    assert sorted(track.label for track in found) == ["cat", "dog"]
    assert [len(track.times) for track in found] == [4, 4]


BOXES = st.lists(st.tuples(st.floats(0, 0.5), st.floats(0, 0.5)), max_size=4)


@given(st.lists(BOXES, min_size=1, max_size=6), st.integers(0, 2), st.floats(0, 1))
def test_every_box_is_in_one_chain(frames, max_gap, reach):
    tables = [np.array([[x, y, x + 0.5, y + 0.5] for x, y in boxes]).reshape(-1, 4) for boxes in frames]

    def closeness(last, boxes):
        return reach - np.abs(last[:, None, :2] - boxes[None, :, :2]).max(axis=2)

    chains = link(tables, closeness, max_gap)
    assert sorted(item for chain in chains for item in chain) == [
        (frame, index) for frame, boxes in enumerate(frames) for index in range(len(boxes))
    ]
    for chain in chains:
        for (before, one), (after, other) in pairwise(chain):
            assert 1 <= after - before <= max_gap + 1
            assert np.abs(tables[before][one] - tables[after][other]).max() < reach


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("blobs", {"background": "sky"}, "background is 'sky': use one of auto, ground, median"),
        ("blobs", {"reach": 0}, "reach is 0"),
        ("blobs", {"num_frames": 0}, "num_frames is 0"),
        ("blobs", {"close": -1}, "close is -1"),
        ("boxes_iou", {"proposer": "grid"}, "proposer is 'grid': use the name and options of a region proposer"),
        ("boxes_iou", {"proposer": {"name": "grit"}}, "Unknown region proposer 'grit'. Did you mean 'grid'?"),
        ("boxes_iou", {"proposer": {"name": "faster_rcnn"}}, "its weights would be random; set its weights"),
        ("boxes_iou", {"min_iou": 2}, "min_iou is 2"),
    ],
)
def test_options(name, options, message):
    with pytest.raises(UmieError) as caught:
        registry.build(name, **options)
    assert message in str(caught.value)
