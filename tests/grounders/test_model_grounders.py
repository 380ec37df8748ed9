"""Grounders that are models of transformers: small ones with random weights, through all their code."""

import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from umie.errors import UmieError
from umie.grounders import Grounder, registry
from umie.grounders.frames import divide
from umie.grounders.sam2 import box_of, with_mask
from umie.media import Clip, Sound
from umie.records import Entity, Record, Region, Track

sys.path.insert(0, str(Path(__file__).resolve().parent))
from tiny_models import ALL, saved

RNG = np.random.default_rng(0)
IMAGE = Image.fromarray(RNG.integers(0, 255, (72, 96, 3), dtype=np.uint8))
TIMES = (0.0, 0.25, 0.5, 0.75)
CLIP = Clip(tuple(Image.fromarray(RNG.integers(0, 255, (72, 96, 3), dtype=np.uint8)) for _ in TIMES), TIMES, 1.0)
SOUND = Sound(RNG.normal(size=16_000).astype(np.float32) / 5, 16_000)
SOURCES = {"image": IMAGE, "video": CLIP, "audio": SOUND}
LOW = {"sam3": {"min_score": 0.0}, "sam3_video": {"min_score": 0.0}, "pe_a_frame": {"min_score": 0.01, "release": 0.01},
       "frames": {"min_score": 0.1}}  # fmt: skip


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    known = {}

    def path_of(name):
        if name not in known:
            known[name] = saved(name, tmp_path_factory.mktemp(name))
        return known[name]

    return path_of


@pytest.mark.parametrize("name", [name for name in ALL if not name.startswith("sam2")])
def test_phrases_have_places_in_order_and_at_most_top(checkpoint, name):
    grounder = registry.build(name, checkpoint=checkpoint(name), top=2, **LOW[name])
    phrases = ["dog", "a cat", "dog"]
    found = grounder.find(SOURCES[grounder.medium], phrases)
    assert [len(own) for own in found] == [len(own[:2]) for own in found]
    assert any(found)
    assert found[0] == found[2]  # the phrase alone decides
    assert all(place.label == phrase for phrase, own in zip(phrases, found, strict=True) for place in own)
    if name == "sam3":
        assert all(one.mask.size == (72, 96) and one.mask.area for own in found for one in own)
    again = grounder.find(SOURCES[grounder.medium], phrases[1:2])
    assert again == found[1:2]  # nor do the other phrases
    sure = registry.build(name, checkpoint=checkpoint(name), min_score=1.0)
    assert sure.find(SOURCES[sure.medium], phrases) == [[]] * 3


def test_the_mask_of_a_region(checkpoint):
    grounder = registry.build("sam2", checkpoint=checkpoint("sam2"))
    given = [Region((0.1, 0.1, 0.5, 0.5), "a"), Region((0.5, 0.1, 0.9, 0.9))]
    found = grounder.refine(IMAGE, given)
    assert [one.label for one in found] == ["a", None]
    for one, before in zip(found, given, strict=True):
        assert one == before or (one.mask.size == (72, 96) and one.box == box_of(one.mask.pixels()))
    assert any(one.mask for one in found)
    single = grounder.refine(IMAGE, given[1:])  # a region does not depend on the others
    assert single[0].box == pytest.approx(found[1].box, abs=0.05)
    assert grounder.refine(IMAGE, []) == []


def test_a_track_through_all_later_frames(checkpoint):
    grounder = registry.build("sam2_video", checkpoint=checkpoint("sam2_video"))
    (found,) = grounder.refine(CLIP, [Track((0.3, 0.5), ((0.1, 0.1, 0.5, 0.5), None))])
    assert found.times == TIMES
    assert found.boxes[0] is None  # before it is first seen
    assert any(found.boxes[1:])


@pytest.mark.parametrize("medium", ["image", "video"])
def test_places_that_items_refer_to_are_sharpened(medium):
    class Halves(Grounder):
        def refine(self, source, places):
            if medium == "image":
                return [Region(tuple(edge / 2 for edge in one.box)) for one in places]
            return [Track((0.0,), ((0, 0, 0.5, 0.5),)) for _ in places]

    Halves.medium = medium
    box, track = (0.2, 0.2, 0.6, 0.6), Track((0.0,), ((0, 0, 1, 1),), "x")
    record = Record(
        "Ann left", image="a.png", more_images=("b.png",), video="c.png",
        regions=(Region(box, "x"), Region(box), Region(box, image=1)), tracks=(track, track),
        entities=(Entity("person", (0, 3), regions=(0, 2), tracks=(1,)),),
    )  # fmt: skip
    from umie.grounders import GrounderConfig

    found = Halves(GrounderConfig()).ground(record)
    assert found.entities == record.entities
    if medium == "image":
        small = tuple(edge / 2 for edge in box)
        assert found.regions == (Region(small, "x"), Region(box), Region(small, image=1))
        assert found.tracks == record.tracks
    else:
        assert found.tracks == (track, Track((0.0,), ((0, 0, 0.5, 0.5),), "x"))
        assert found.regions == record.regions


def test_long_phrases_and_short_sounds(checkpoint):
    long = "a very long phrase of many words that a badly trained model may write " * 3
    for name in ("sam3", "sam3_video", "pe_a_frame"):
        grounder = registry.build(name, checkpoint=checkpoint(name), **LOW[name])
        assert len(grounder.find(SOURCES[grounder.medium], [long, "dog"])) == 2
    for name in ("pe_a_frame", "frames"):
        grounder = registry.build(name, checkpoint=checkpoint(name), **LOW[name])
        for samples in (np.zeros(1, np.float32), RNG.normal(size=16_000 * 31).astype(np.float32) / 5):
            sound = Sound(samples, 16_000)
            (found,) = grounder.find(sound, ["dog"])
            assert all(0 <= one.interval[0] < one.interval[1] <= sound.seconds + 1e-6 for one in found)


@pytest.mark.parametrize("name", [*ALL, "ctc"])
@pytest.mark.parametrize(
    ("given", "message"),
    [(None, "checkpoint is None: use the directory of"), ("empty", "cannot be loaded"), (3, "checkpoint is 3")],
)
def test_a_missing_checkpoint(name, given, message, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(UmieError, match=message):
        registry.build(name, checkpoint=str(tmp_path / "empty") if given == "empty" else given)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=60), st.integers(0, 4), st.integers(2, 20), st.floats(0.05, 0.95))
def test_divided_speech(speech, shortest, more, threshold):
    """Parts are in order and apart, neither too short nor too long, with speech at both ends."""
    longest = 2 * max(shortest, 1) + more
    parts = list(divide(np.array(speech), 0, len(speech), threshold, shortest, longest))
    assert parts == sorted(parts)
    assert all(before[1] <= after[0] for before, after in pairwise(parts))
    for first, end in parts:
        assert max(shortest, 1) <= end - first <= longest
        assert min(speech[first], speech[end - 1]) >= threshold


def test_speech_is_divided_where_it_is_least_probable():
    speech = np.array([0.1, 0.9, 0.8, 0.9, 0.6, 0.9, 0.9, 0.2])
    assert list(divide(speech, 0, 8, 0.5, 1, 8)) == [(1, 7)]
    assert list(divide(speech, 0, 8, 0.5, 1, 4)) == [(1, 4), (4, 7)]


def test_boxes_of_masks():
    pixels = np.zeros((10, 20), dtype=bool)
    place = Region((0.1, 0.1, 0.2, 0.2), "x")
    assert (box_of(pixels), with_mask(place, pixels)) == (None, place)
    pixels[2:4, 5:10] = True
    assert box_of(pixels) == (0.25, 0.2, 0.5, 0.4)
    assert (with_mask(place, pixels).mask.pixels() == pixels).all()
    assert torch.equal(torch.from_numpy(pixels), torch.from_numpy(with_mask(place, pixels).mask.pixels()))
