"""Places: names, boxes, intervals, tracks, masks, and what the lines of records say about them."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from umie.errors import UmieError
from umie.records import (
    Argument,
    Entity,
    Event,
    Mask,
    Places,
    Record,
    Region,
    Relation,
    Segment,
    Track,
    record_from_json,
    record_to_json,
)

INDICES = st.lists(st.integers(0, 40), unique=True, max_size=4).map(sorted).map(tuple)
PLACES = st.builds(Places, INDICES, INDICES, INDICES)
BOX = (0.1, 0.2, 0.5, 0.6)


@given(PLACES)
def test_places_have_names_and_are_found_by_them(places):
    assert Places.named(places.names) == places
    assert bool(places) == bool(places.names)


def test_names_are_in_the_order_of_media_and_count_from_one():
    assert Places((0, 35), (1,), (0,)).names == ("O1", "O36", "V2", "S1")


@pytest.mark.parametrize("name", ["O0", "O", "1", "o1", "O-1", "O1x", "O01", "O²", " O1", "X1", "O" + "9" * 5000, ""])
def test_other_strings_are_no_names(name):
    assert Places.named([name]) is None


@given(st.integers(1, 9).flatmap(lambda h: st.lists(st.lists(st.booleans(), min_size=h, max_size=h), min_size=1)))
def test_masks_keep_their_pixels(rows):
    pixels = np.array(rows, dtype=bool)
    mask = Mask.of(pixels)
    assert (mask.pixels() == pixels).all() and mask.area == pixels.sum()


def test_a_mask_is_that_of_coco():
    """A 2 x 3 mask, column by column: outside, inside twice, outside twice, inside."""
    mask = Mask((2, 3), (1, 2, 2, 1))
    assert mask.pixels().tolist() == [[False, True, False], [True, False, True]]


def test_a_track_is_interpolated_where_it_is_visible():
    track = Track((1, 2, 3, 4), ((0, 0, 0.2, 0.2), (0.2, 0, 0.4, 0.2), None, BOX))
    assert track.interval == (1, 4)
    assert track.box_at(1.5) == pytest.approx((0.1, 0, 0.3, 0.2))
    assert track.box_at(2) == (0.2, 0, 0.4, 0.2)
    assert track.box_at(4) == BOX
    assert [track.box_at(time) for time in (0.5, 2.5, 3.5, 4.5)] == [None] * 4


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        (lambda: Segment((1, 1)), "interval [1, 1] must be two times in seconds"),
        (lambda: Segment((0, float("nan"))), "interval [0, nan] must be two times"),
        (lambda: Track((), ()), "the times of a track are []"),
        (lambda: Track((1, 0), (BOX, BOX)), "the times of a track are [1, 0]: expected ascending seconds"),
        (lambda: Track((1,), (None,)), "a track has no boxes"),
        (lambda: Track((1, 2), (BOX,)), "a track has 2 times and 1 boxes"),
        (lambda: Track((1,), ((0, 0, 2, 1),)), "box [0, 0, 2, 1] is not inside the image"),
        (lambda: Mask((2, 2), (1, 2)), "the runs of a mask add up to 3"),
        (lambda: Mask((10**6, 10**6), (10**12,)), "mask size [1000000, 1000000] must be"),
        (lambda: Entity("x"), "entity 'x' needs a span, or a place that shows it"),
        (lambda: Entity("x", segments=(-1,)), "entity: segment -1 must be an index of 0 or more"),
        (lambda: Relation("x", (0, 1), None), "the tail of relation 'x' needs a span, or a place"),
        (lambda: Argument("x"), "argument 'x' needs a span, or a place"),
        (lambda: Record(""), "text is empty"),
        (
            lambda: Record("a", entities=(Entity("x", tracks=(0,)),)),
            "entity 'x' refers to track 0, but the record has 0",
        ),
    ],
)
def test_what_is_no_place_is_one_line(make, problem):
    with pytest.raises(UmieError) as caught:
        make()
    assert str(caught.value).startswith(problem)


FULL = Record(
    "Ann left",
    image="a.png",
    audio="a.wav",
    video="a.mp4",
    regions=(Region(BOX, "person", Mask((1, 2), (1, 1))),),
    segments=(Segment((0.5, 1)), Segment((1, 2.5), "voice")),
    tracks=(Track((0, 1, 2), (BOX, None, BOX), "car"),),
    entities=(Entity("person", (0, 3), regions=(0,), segments=(1,)), Entity("person", tracks=(0,))),
    relations=(Relation("peer", (0, 3), None, tail_places=Places(tracks=(0,))),),
    events=(
        Event("leave", None, (Argument("Agent", (0, 3), segments=(1,)), Argument("Agent", tracks=(0,))), tracks=(0,)),
    ),
)


def test_media_and_places_survive_the_line():
    line = record_to_json(FULL)
    assert record_from_json(line) == FULL
    assert '"regions": [0], "segments": [1]' in line.replace('"tracks": [], ', "")


def test_combinations_name_text_and_media():
    assert FULL.combination == "T+I+A+V"
    assert Record("", audio="a.wav").combination == "A"
    assert Record("a").combination == "T"


def test_without_a_medium_only_what_is_elsewhere_is_left():
    left = FULL.ungrounded("video")
    assert left.entities == (FULL.entities[0],)
    assert left.relations == ()
    assert left.events == (Event("leave", None, (FULL.events[0].arguments[0],)),)
