"""Precision, recall and F1 from counts, micro, macro and by label."""

import numpy as np
import pytest

from umie.scoring.counts import Counts
from umie.scoring.score_sheet import Score, Sheet, ratios

# label a: 3 correct of 4 predicted and 5 annotated; label b: none of 1 and 1; label c: only ever predicted
TALLIES = [
    {"a": Counts(1, 2, 3), "b": Counts(0, 1, 1)},
    {"a": Counts(2, 2, 2), "c": Counts(0, 3, 0)},
    {},
]


def test_micro_sums_the_labels_first():
    assert Sheet.of(TALLIES).score() == Score(
        precision=pytest.approx(3 / 8),
        recall=pytest.approx(3 / 6),
        f1=pytest.approx(6 / 14),
        true_positives=3,
        predicted=8,
        gold=6,
    )


def test_macro_is_the_mean_over_labels_that_occur_on_either_side():
    score = Sheet.of(TALLIES).score("macro")
    assert score.precision == pytest.approx((3 / 4 + 0 + 0) / 3)
    assert score.recall == pytest.approx((3 / 5 + 0 + 0) / 3)
    assert score.f1 == pytest.approx((6 / 9 + 0 + 0) / 3)
    assert (score.true_positives, score.predicted, score.gold) == (3, 8, 6)


def test_scores_of_labels():
    by_label = Sheet.of(TALLIES).by_label()
    assert list(by_label) == ["a", "b", "c"]
    assert by_label["a"] == (3 / 4, 3 / 5, pytest.approx(2 / 3), 3, 4, 5)
    assert by_label["b"] == (0, 0, 0, 0, 1, 1)
    assert by_label["c"] == (0, 0, 0, 0, 3, 0)


@pytest.mark.parametrize(
    ("tally", "expected"),
    [
        ({}, (0, 0, 0, 0, 0, 0)),
        ({"a": Counts(0, 0, 2)}, (0, 0, 0, 0, 0, 2)),
        ({"a": Counts(0, 2, 0)}, (0, 0, 0, 0, 2, 0)),
    ],
    ids=["both empty", "nothing predicted", "nothing annotated"],
)
def test_empty_sides_score_0_without_a_warning(tally, expected):
    sheet = Sheet.of([tally])
    assert sheet.score() == sheet.score("macro") == expected
    assert sheet.is_empty == (tally == {})


def test_a_measure_without_labels_has_no_macro():
    assert not Sheet.of([{"": Counts(1, 1, 1)}, {}]).has_labels
    assert Sheet.of(TALLIES).has_labels


def test_labels_missing_from_a_resample_are_not_in_its_macro():
    sums = np.array([[[1.0, 1, 1], [0, 0, 0]], [[1, 1, 1], [0, 1, 0]], [[0, 0, 0], [0, 0, 0]]])
    assert ratios(sums, "macro")[2].tolist() == [1.0, 0.5, 0.0]
