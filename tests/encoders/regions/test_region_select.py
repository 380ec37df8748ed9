"""Selection: what is dropped, suppressed and kept, and in which order."""

import math
from collections import Counter

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from umie.encoders.regions.base import NO_AREA, NOT_FINITE, OUTSIDE, Candidates, Proposal, select
from umie.records import Region

LEFT, RIGHT, WHOLE = (0.0, 0.0, 0.5, 1.0), (0.5, 0.0, 1.0, 1.0), (0.0, 0.0, 1.0, 1.0)


def candidates(*found):
    """Candidates of (box, score) or (box, score, label)."""
    table = torch.tensor([item[0] for item in found], dtype=torch.float64).view(-1, 4)
    labels = [item[2] if len(item) > 2 else None for item in found]
    return Candidates(table, torch.tensor([item[1] for item in found], dtype=torch.float64), labels)


def chosen(*found, top=36, overlap=0.5, **options):
    return select(candidates(*found), top=top, overlap=overlap, **options)


def overlap_of(a, b):
    """Intersection over union, written out."""
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    common = max(0, width) * max(0, height)
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (a, b)]
    return common / (sum(areas) - common)


def reference(found, top, overlap, taken=()):
    """Greedy suppression one by one: the plain twin of what torchvision does."""
    order = sorted(found, key=lambda item: (-item[1], item[0][1], item[0][0], item[0][3], item[0][2], item[2] or ""))
    kept = []
    for box, score, label in order:
        others = [*taken, *(proposal.box for proposal in kept)]
        if all(box != other and overlap_of(box, other) <= overlap for other in others):
            kept.append(Proposal(box, score, label))
    return kept[:top]


corners = st.sampled_from([index / 8 for index in range(9)])  # few values: many ties and overlaps


@st.composite
def boxes(draw):
    x1, x2 = sorted(draw(st.lists(corners, min_size=2, max_size=2, unique=True)))
    y1, y2 = sorted(draw(st.lists(corners, min_size=2, max_size=2, unique=True)))
    return (x1, y1, x2, y2)


items = st.tuples(boxes(), st.sampled_from([0.25, 0.5, 0.75]), st.sampled_from([None, "cat", "dog"]))
overlaps = st.sampled_from([0.0, 0.3, 0.5, 0.9, 1.0])


@given(st.data(), st.lists(items, max_size=30), overlaps, st.integers(1, 12))
def test_the_order_of_the_candidates_never_matters(data, found, overlap, top):
    expected = chosen(*found, overlap=overlap, top=top)
    assert chosen(*data.draw(st.permutations(found)), overlap=overlap, top=top) == expected
    assert [item.score for item in expected] == sorted((item.score for item in expected), reverse=True)


@given(st.lists(items, max_size=30), overlaps, st.integers(1, 12), st.lists(boxes(), max_size=3))
def test_it_is_greedy_suppression(found, overlap, top, taken):
    expected = reference(found, top, overlap, taken)
    assert chosen(*found, overlap=overlap, top=top, taken=taken) == expected


numbers = st.floats(-2, 3) | st.sampled_from([math.nan, math.inf, -math.inf, 0.0, 1.0])


@given(st.lists(st.tuples(st.tuples(*[numbers] * 4), numbers), max_size=20))
def test_whatever_comes_in_regions_come_out_and_all_are_accounted_for(found):
    counts = Counter()
    kept = chosen(*found, overlap=1.0, min_score=-10, top=100, counts=counts)
    for item in kept:
        Region(item.box)  # raises where a box makes no sense
    repeats = len({item.box for item in kept}) - len(kept)
    assert repeats == 0
    clipped = [tuple(min(max(edge, 0.0), 1.0) for edge in box) for box, score in found if math.isfinite(score)]
    assert {item.box for item in kept} <= set(clipped)
    assert sum(counts.values()) + len(kept) <= len(found)
    assert set(counts) <= {NOT_FINITE, NO_AREA, OUTSIDE}


@pytest.mark.parametrize(
    ("box", "score", "reason"),
    [
        ((math.nan, 0, 1, 1), 0.5, NOT_FINITE),
        ((0, 0, math.inf, 1), 0.5, NOT_FINITE),
        ((0, 0, 1, 1), math.nan, NOT_FINITE),
        ((0.6, 0, 0.4, 1), 0.5, NO_AREA),
        ((0, 0.5, 1, 0.5), 0.5, NO_AREA),
        ((1.1, 0, 1.4, 1), 0.5, OUTSIDE),
        ((-0.4, 0, 0.0, 1), 0.5, OUTSIDE),
    ],
)
def test_boxes_that_make_no_sense_are_dropped_and_counted(box, score, reason):
    counts = Counter()
    kept = chosen((box, score), (LEFT, 0.1), counts=counts)
    assert [item.box for item in kept] == [LEFT]
    assert counts == {reason: 1}


def test_boxes_are_cut_at_the_edges():
    assert chosen(((-0.5, 0.25, 0.5, 7.0), 0.9))[0].box == (0.0, 0.25, 0.5, 1.0)


def test_one_place_under_two_labels_is_one_region():
    kept = chosen((LEFT, 0.6, "cat"), (LEFT, 0.9, "dog"), (RIGHT, 0.5, "cat"))
    assert [(item.box, item.label) for item in kept] == [(LEFT, "dog"), (RIGHT, "cat")]


def test_equal_scores_are_in_reading_order():
    quarters = [(x, y, x + 0.5, y + 0.5) for x in (0.5, 0.0) for y in (0.5, 0.0)]
    kept = chosen(*((box, 0.5) for box in quarters))
    assert [item.box[:2] for item in kept] == [(0.0, 0.0), (0.5, 0.0), (0.0, 0.5), (0.5, 0.5)]


def test_top_and_min_score():
    found = [(LEFT, 0.9), (RIGHT, 0.4), ((0.0, 0.0, 0.1, 0.1), 0.2)]
    assert [item.score for item in chosen(*found, top=2)] == [0.9, 0.4]
    assert [item.score for item in chosen(*found, min_score=0.4)] == [0.9, 0.4]


def test_taken_boxes_suppress_and_an_equal_one_always_does():
    kept = chosen((WHOLE, 0.9), (LEFT, 0.8), overlap=0.6, taken=[(0, 0, 0.9, 1.0)])
    assert [item.box for item in kept] == [LEFT]
    assert chosen((LEFT, 0.9), overlap=1.0, taken=[LEFT]) == []
    # what a taken box suppresses suppresses nothing itself
    assert [item.box for item in chosen((WHOLE, 0.9), (RIGHT, 0.5), overlap=0.4, taken=[LEFT])] == [RIGHT]


def test_nothing_from_nothing():
    assert select(Candidates(), top=36, overlap=0.5) == []
    assert select(Candidates(), top=36, overlap=0.5, taken=[LEFT]) == []
