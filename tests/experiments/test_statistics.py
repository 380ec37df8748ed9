"""The uncertainty of differences, by simulation: how often equal systems are found different, and unequal ones not."""

import math
import warnings

import numpy as np
import pytest
from scipy import stats

from umie.experiments.statistics import (
    ALPHA,
    POWER,
    RESAMPLES,
    Comparison,
    corrected,
    critical_value,
    detectable,
    p_value,
    standard_error,
)
from umie.scoring.resampling import bootstrap_sums
from umie.scoring.score_sheet import ratios

GRIDS, RECORDS = 2000, 150
# how much seeds differ, and how much variants differ in what they find easy (standard deviations, in logits)
CASES = [
    (0.5, 0.5),
    *(pytest.param(*one, marks=pytest.mark.slow) for one in [(0, 0), (0.15, 0), (0.15, 1), (0.5, 0), (1, 0)]),
]


def simulated(rng, *, seeds, spread, taste, grids=GRIDS):
    """Yield the differences in F1 of two variants on all records [seeds, grids] and on resamples of them.

    A system finds each of two annotated items of a record with a probability that depends on how difficult the record
    is, on what the variant finds easy with every seed, and on the seed; it sometimes predicts another item.
    """
    for _ in range(grids // 100):
        logits = rng.normal(1, 1.5, (RECORDS, 100, 1, 1)) + rng.normal(0, taste, (RECORDS, 100, 2, 1))
        logits = logits + rng.normal(0, spread, (1, 100, 2, seeds))
        found = rng.binomial(2, 1 / (1 + np.exp(-logits)))
        counts = np.stack([found, found + rng.binomial(1, 0.1, found.shape), np.full(found.shape, 2)], -1)
        counts = counts.reshape(RECORDS, -1, 3).astype(float)
        sums = np.concatenate([counts.sum(axis=0)[None], bootstrap_sums(counts, RESAMPLES, 0)])
        f1 = ratios(sums[..., None, :], "micro")[2].reshape(1 + RESAMPLES, 100, 2, seeds)
        differences = np.moveaxis(f1[:, :, 0] - f1[:, :, 1], -1, 0)
        yield differences[:, 0], differences[:, 1:]


def measured(seed, **options):
    """Return the mean over seeds, its standard error, and the share of the seeds in its variance, of each grid."""
    parts = [
        (values.mean(axis=0), *standard_error(values, draws))
        for values, draws in simulated(np.random.default_rng(seed), **options)
    ]
    return map(np.concatenate, zip(*parts, strict=True))


def hierarchical(rng, values, draws):
    """Return what a bootstrap rejects that resamples the seeds, too."""
    picked = rng.integers(0, len(values), (len(values), RESAMPLES))
    means = np.mean([draws[chosen, np.arange(RESAMPLES)] for chosen in picked], axis=0)
    return 2 * np.minimum((means <= 0).mean(axis=0), (means >= 0).mean(axis=0)) < ALPHA


def highest(level, number):
    """Return the share of rejections that a test of a level exceeds in one of a thousand simulations."""
    return stats.binom.ppf(0.999, number, level) / number


@pytest.mark.parametrize(("spread", "taste"), CASES)
def test_the_level_holds_and_a_difference_as_large_as_stated_is_found_in_four_of_five_grids(spread, taste):
    means, error, share = measured(0, seeds=3, spread=spread, taste=taste)
    bound = critical_value(ALPHA, share, 3) * error
    assert np.mean(abs(means) > bound) <= highest(ALPHA, GRIDS)
    of_seeds, whole = np.mean(share * error**2), np.mean(error**2)  # a single grid only estimates them
    planted = math.sqrt(whole) * detectable(ALPHA, of_seeds / whole, 3)
    # higher where seeds hardly matter: what is chance in one seed and one record counts in both variances
    assert POWER - 0.03 < np.mean(abs(means + planted) > bound) < 0.99


@pytest.mark.slow
@pytest.mark.parametrize("seeds", [1, 2, 5])
def test_other_numbers_of_seeds_keep_the_level_too(seeds):
    spread = 0.0 if seeds == 1 else 0.5  # a single seed says nothing about others
    means, error, share = measured(1, seeds=seeds, spread=spread, taste=0.5)
    assert np.mean(abs(means) > critical_value(ALPHA, share, seeds) * error) <= highest(ALPHA, GRIDS)


@pytest.mark.slow
def test_a_hierarchical_bootstrap_would_not_keep_it():
    rng = np.random.default_rng(0)
    found = [hierarchical(rng, *one) for one in simulated(rng, seeds=3, spread=0.5, taste=0.5, grids=500)]
    assert np.mean(found) > 2 * ALPHA


def test_critical_values_are_between_the_normal_one_and_that_of_student():
    # from tables: t(0.975; 2) = 4.3027, z = 1.9600
    assert critical_value(0.05, 0.0, 3) == pytest.approx(1.95996, rel=1e-5)
    assert critical_value(0.05, 1.0, 3) == pytest.approx(4.30265, rel=1e-5)
    assert critical_value(0.05, 0.25, 3) == pytest.approx(0.25 * 4.30265 + 0.75 * 1.95996, rel=1e-5)
    assert critical_value(0.05, 0.0, 1) == pytest.approx(1.95996, rel=1e-5)


@pytest.mark.parametrize(("share", "seeds"), [(0.0, 1), (1.0, 2), (0.0, 3), (0.3, 3), (1.0, 5)])
def test_p_is_the_lowest_level_that_rejects(share, seeds):
    for size in (0.5, 2.0, 7.0):
        p = p_value(size, share, seeds)
        assert critical_value(p, share, seeds) == pytest.approx(size)
    assert p_value(0.0, share, seeds) == 1
    assert p_value(1e200, share, seeds) == 0


def test_the_detectable_difference_has_the_power_of_the_t_test():
    # paired t test of three differences, level 0.05, power 0.8: noncentrality 5.65 (G*Power: dz = 3.26)
    assert detectable(0.05, 1.0, 3) == pytest.approx(3.26 * math.sqrt(3), rel=2e-3)
    assert detectable(0.05, 0.0, 3) == pytest.approx(1.95996 + 0.84162, rel=1e-5)
    for level, seeds in ((0.05, 2), (0.005, 5), (0.001, 10)):
        bound, size = critical_value(level, 1.0, seeds), detectable(level, 1.0, seeds)
        assert stats.nct.sf(bound, seeds - 1, size) == pytest.approx(POWER, abs=1e-3)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # of numbers that do not converge
        assert detectable(0.05 / 100_000, 1.0, 2) > 1e6


def compared(**changes):
    given = {"num_seeds": 3, "difference": 0.1, "error": 0.02, "share": 0.5}
    return Comparison("a", "b", "MNER", **{**given, **changes})


def test_two_seeds_have_no_interval_and_one_seed_is_about_two_models():
    assert compared(num_seeds=2, share=1.0).interval is None
    low, high = compared().interval
    assert (low + high) / 2 == pytest.approx(0.1)
    (one,) = corrected([compared(num_seeds=1, share=0.0)])
    assert one.verdict == "better, of these two models"
    (two,) = corrected([compared(num_seeds=2, share=1.0)])
    assert two.verdict.startswith("not distinguishable (2 seeds, smallest difference this grid could have seen: 32.7")


def test_what_a_grid_could_have_seen_depends_on_the_number_of_comparisons():
    (alone,), (first, _) = corrected([compared()]), corrected([compared(), compared()])
    assert alone.smallest < first.smallest
    assert corrected([compared(error=0.0, difference=0.0)])[0].verdict == "equal"
    (blind,) = corrected([compared(error=0.4, difference=0.3)])
    assert blind.verdict == "not distinguishable (3 seeds, too few for this grid to see any difference)"


def test_two_seeds_count_as_if_all_variance_was_theirs():
    values, draws = np.array([[0.1], [0.1]]), np.random.default_rng(0).normal(0.1, 0.02, (2, 100, 1))
    error, share = standard_error(values, draws)
    assert share == 1
    assert error == pytest.approx(draws.mean(axis=0).std())
