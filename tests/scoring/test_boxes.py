"""Overlap of boxes and spans, and the largest one-to-one matching."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from umie.records.overlap import iou
from umie.scoring.boxes import count_pairs, enclosing, overlap, same_box


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ((0, 0, 1, 1), (0, 0, 1, 1), 1.0),
        ((0, 0, 0.5, 1), (0, 0, 1, 1), 0.5),
        ((0, 0, 0.5, 0.5), (0.25, 0.25, 0.75, 0.75), 0.0625 / 0.4375),
        ((0, 0, 0.5, 1), (0.5, 0, 1, 1), 0.0),  # they touch
        ((0, 0, 0.2, 0.2), (0.5, 0.5, 1, 1), 0.0),
    ],
)
def test_iou(first, second, expected):
    assert iou(first, second) == pytest.approx(expected)
    assert iou(second, first) == pytest.approx(expected)


def test_an_iou_of_exactly_one_half_matches():
    assert same_box((0, 0, 0.5, 1), (0, 0, 1, 1))
    assert not same_box((0, 0, 0.499, 1), (0, 0, 1, 1))
    # two thirds overlap of two equal boxes is one half, whatever the rounding of the coordinates
    for shift in (0.1, 0.2, 0.3, 0.01, 0.07):
        assert same_box((shift, 0.1, shift + 0.3, 0.7), (shift + 0.1, 0.1, shift + 0.4, 0.7))


def test_the_enclosing_box():
    assert enclosing([(0.1, 0.5, 0.3, 0.6), (0.2, 0.1, 0.9, 0.2)]) == (0.1, 0.1, 0.9, 0.6)


def test_spans_overlap_in_a_character():
    assert overlap((0, 3), (2, 5))
    assert overlap((0, 9), (2, 3))
    assert not overlap((0, 3), (3, 5))


def test_the_largest_matching_is_found():
    edges = {("a", "x"), ("a", "y"), ("b", "x")}  # a takes x, and b is left with nothing, unless a steps aside

    def fits(one, other):
        return (one, other) in edges

    assert count_pairs(["a", "b"], ["x", "y"], fits) == 2
    assert count_pairs(["a"], ["x", "y"], fits) == 1
    assert count_pairs([], ["x"], fits) == count_pairs(["a"], [], fits) == 0


@given(st.integers(0, 4), st.integers(0, 4), st.data())
def test_the_matching_equals_that_of_brute_force(num_rows, num_columns, data):
    edges = data.draw(st.sets(st.tuples(st.integers(0, 3), st.integers(0, 3))))
    rows, columns = range(num_rows), range(num_columns)
    padded = [*columns, *[None] * num_rows]
    best = max(
        sum((row, column) in edges for row, column in zip(rows, order, strict=True))
        for order in itertools.permutations(padded, num_rows)
    )
    assert count_pairs(rows, columns, lambda row, column: (row, column) in edges) == best
