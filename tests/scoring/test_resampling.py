"""Intervals and paired tests, against plain loops and known distributions."""

import numpy as np
import pytest
from scipy import stats

from umie.scoring import resampling
from umie.scoring.resampling import bootstrap_p, bootstrap_sums, interval, randomization_p, swapped_sums


def test_resamples_are_sums_over_records_drawn_with_replacement():
    """Powers of a large base show how often each record was drawn."""
    counts = np.array([[1.0], [1000.0], [1000000.0]])
    sums = bootstrap_sums(counts, resamples=3000, seed=0)[:, 0].astype(int)
    drawn = np.stack([sums % 1000, sums // 1000 % 1000, sums // 1000000], axis=1)
    assert (drawn.sum(axis=1) == 3).all()
    assert drawn.mean(axis=0) == pytest.approx([1, 1, 1], abs=0.05)
    assert drawn.var(axis=0) == pytest.approx([2 / 3] * 3, abs=0.06)  # binomial: 3 draws, one third each


def test_draws_depend_on_the_seed_and_not_on_chunks(monkeypatch):
    counts = np.arange(20.0).reshape(10, 2)
    whole = bootstrap_sums(counts, 50, seed=3)
    monkeypatch.setattr(resampling, "_CHUNK", 70)  # 7 resamples at a time
    assert np.array_equal(bootstrap_sums(counts, 50, seed=3), whole)
    assert not np.array_equal(bootstrap_sums(counts, 50, seed=4), whole)
    assert whole.shape == (50, 2)


def test_two_systems_are_resampled_alike():
    counts = np.random.default_rng(0).integers(0, 5, (30, 3)).astype(float)
    assert np.array_equal(bootstrap_sums(counts, 40, 0) * 2, bootstrap_sums(counts * 2, 40, 0))


def test_the_interval_is_that_of_the_percentiles():
    assert interval(np.arange(1001.0)) == pytest.approx((25, 975))
    assert interval(np.array([np.nan, 2.0, np.nan, 2.0])) == (2, 2)
    assert interval(np.array([np.nan])) == (0, 0)


def test_the_interval_has_its_nominal_coverage():
    """The mean of 100 draws of a coin: about 95% of intervals contain the true share."""
    generator = np.random.default_rng(0)
    hits = 0
    for trial in range(300):
        draws = (generator.random((100, 1)) < 0.3).astype(float)
        low, high = interval(bootstrap_sums(draws, 300, seed=trial)[:, 0] / 100)
        hits += low <= 0.3 <= high
    assert 0.90 <= hits / 300 <= 0.98


@pytest.mark.parametrize(
    ("differences", "expected"),
    [
        ([0.0] * 9, 1.0),
        ([1.0] * 9, 2 * 1 / 10),
        ([-1.0] * 9, 2 * 1 / 10),
        ([1.0] * 8 + [-1.0], 2 * 2 / 10),
        ([1.0] * 8 + [0.0], 2 * 2 / 10),
        ([1.0, -1.0] * 5, 1.0),
        ([1.0] * 9 + [np.nan], 2 * 1 / 10),
    ],
)
def test_p_of_the_bootstrap_by_hand(differences, expected):
    assert bootstrap_p(np.array(differences)) == pytest.approx(expected)


def test_p_of_the_randomization_by_hand():
    differences = np.array([0.5, -0.5, 0.1, 0.0])
    assert randomization_p(0.5, differences) == pytest.approx(3 / 5)
    assert randomization_p(-0.5, differences) == pytest.approx(3 / 5)
    assert randomization_p(0.7, differences) == pytest.approx(1 / 5)
    assert randomization_p(0.0, differences) == 1.0


def test_swaps_keep_the_sum_of_both_systems():
    generator = np.random.default_rng(1)
    first, second = (generator.integers(0, 4, (25, 2)).astype(float) for _ in range(2))
    one, two = swapped_sums(first, second, 60, seed=0)
    assert np.allclose(one + two, first.sum(axis=0) + second.sum(axis=0))
    assert len(np.unique(one[:, 0])) > 5
    same = swapped_sums(first, first, 60, seed=0)
    assert (same[0] == first.sum(axis=0)).all()


def test_the_randomization_agrees_with_the_sign_test():
    """For systems that differ in single items, each swap flips a coin per record, as in the sign test."""
    first, second = np.zeros((100, 1)), np.zeros((100, 1))
    first[:27], second[27:40] = 1, 1
    one, two = swapped_sums(first, second, 20000, seed=0)
    expected = stats.binomtest(27, 40).pvalue
    assert randomization_p(14.0, (one - two)[:, 0]) == pytest.approx(expected, abs=0.006)
