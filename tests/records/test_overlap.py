"""Overlap of regions, segments and tracks: cases counted by hand, and properties."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from umie.records import Mask, Region, Segment, Track
from umie.records.overlap import extent, place_iou, same_place

EDGES = st.integers(0, 7).flatmap(lambda low: st.tuples(st.just(low), st.integers(low + 1, 8)))
BOXES = st.builds(lambda x, y: (x[0] / 8, y[0] / 8, x[1] / 8, y[1] / 8), EDGES, EDGES)


@st.composite
def masks(draw):
    """Draw a mask, which may be empty or full, and may have runs of no pixels."""
    size = draw(st.sampled_from([(4, 3), (4, 3), (3, 4)]))
    cuts = sorted(draw(st.lists(st.integers(0, 12), max_size=6)))
    return Mask(size, tuple(end - start for start, end in pairwise([0, *cuts, 12])))


@st.composite
def tracks(draw):
    """Draw a track that is visible at least once."""
    times = sorted(draw(st.sets(st.integers(0, 9), min_size=1, max_size=5)))
    boxes = [draw(st.none() | BOXES) for _ in times]
    boxes[draw(st.integers(0, len(times) - 1))] = draw(BOXES)
    return Track(tuple(time / 2 for time in times), tuple(boxes))


SEGMENTS = EDGES.map(lambda edges: Segment((edges[0] / 3, edges[1] / 3)))
PLACES = st.one_of(st.builds(Region, BOXES, mask=st.none() | masks()), SEGMENTS, tracks())


@given(PLACES, PLACES)
def test_it_is_symmetric_and_between_0_and_1(first, second):
    value = place_iou(first, second)
    assert 0 <= value <= 1
    assert value == pytest.approx(place_iou(second, first))
    if type(first) is not type(second):
        assert value == 0


@given(PLACES)
def test_a_place_equals_itself_whatever_its_label(place):
    named = replace(place, label="dog")
    assert place_iou(place, named) == pytest.approx(1)
    assert same_place(place, named)
    assert extent(place) == extent(named)
    assert hash(extent(place)) == hash(extent(named))


@given(masks(), masks())
def test_masks_are_compared_pixel_by_pixel(first, second):
    """The box says nothing, unless the masks have other sizes or no pixels."""
    regions = Region((0, 0, 0.5, 1), mask=first), Region((0, 0, 1, 1), mask=second)
    expected = 0.5
    if first.size == second.size:
        one, other = first.pixels(), second.pixels()
        union = np.logical_or(one, other).sum()
        expected = np.logical_and(one, other).sum() / union if union else 0.5
    assert place_iou(*regions) == pytest.approx(expected)
    assert place_iou(regions[0], Region((0, 0, 1, 1))) == 0.5


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [((0, 2), (1, 3), 1 / 3), ((0, 1), (0, 2), 1 / 2), ((0, 1), (1, 2), 0), ((0, 9), (4, 5), 1 / 9)],
)
def test_segments(first, second, expected):
    assert place_iou(Segment(first), Segment(second)) == pytest.approx(expected)


LEFT, WIDE, RIGHT = (0, 0, 0.5, 1), (0, 0, 1, 1), (0.5, 0, 1, 1)


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        (((0, 1), (LEFT, LEFT)), ((0, 1), (WIDE, LEFT)), (0.5 + 1) / 2),
        (((0, 2), (LEFT, LEFT)), ((1,), (LEFT,)), (0 + 1 + 0) / 3),  # 1 is interpolated, 0 and 2 have one track
        (((0, 2), (LEFT, RIGHT)), ((0, 1, 2), (LEFT, (0.25, 0, 0.75, 1), RIGHT)), 1),  # a redundant time
        (((0, 1, 2), (LEFT, None, LEFT)), ((0, 1, 2), (LEFT, None, RIGHT)), (1 + 0) / 2),  # 1 does not count
        (((0,), (LEFT,)), ((1,), (LEFT,)), 0),
    ],
)
def test_tracks(first, second, expected):
    assert place_iou(Track(*first), Track(*second)) == pytest.approx(expected)


@given(tracks(), st.lists(st.floats(0, 5, allow_subnormal=False), max_size=4))
def test_redundant_times_change_nothing(track, added):
    times = sorted({*track.times, *(time for time in added if track.box_at(time) is not None)})
    longer = Track(tuple(times), tuple(track.box_at(time) for time in times))
    assert place_iou(track, longer) == pytest.approx(1)


def test_one_half_counts_in_every_medium():
    assert same_place(Segment((0.1, 0.4)), Segment((0.2, 0.5)))
    assert same_place(Track((0, 1), (LEFT, LEFT)), Track((0, 1), (WIDE, WIDE)))
    assert not same_place(Segment((0, 1)), Segment((0, 2.01)))


def test_tiny_boxes_are_compared():
    tiny = Region((0, 0, 1e-200, 1e-200))
    assert place_iou(tiny, tiny) == 1
    assert place_iou(tiny, Region((0, 0, 1e-190, 1e-190))) == 0


@pytest.mark.slow
def test_masks_overlap_as_pycocotools_says():
    coco = pytest.importorskip("pycocotools.mask", reason="needs pycocotools")
    drawn = np.random.default_rng(0)
    for _ in range(500):
        size = tuple(int(side) for side in drawn.integers(1, 40, 2))
        one, other = (Mask.of(drawn.random(size) < drawn.choice([0.02, 0.3, 0.8, 1])) for _ in range(2))
        if not (one.area and other.area):
            continue
        runs = [{"size": list(mask.size), "counts": list(mask.counts)} for mask in (one, other)]
        encoded = [coco.frPyObjects(own, *own["size"]) for own in runs]
        ((expected,),) = coco.iou([encoded[0]], [encoded[1]], [0])
        places = [Region((0, 0, 1, 1), mask=mask) for mask in (one, other)]
        assert place_iou(*places) == pytest.approx(expected, abs=1e-9)
        assert coco.area(encoded[0]) == one.area
