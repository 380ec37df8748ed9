"""Mixtures: every query once per pass, the requested shares, and an order that depends only on seed and step."""

import itertools
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import Dataset

from umie.errors import UmieError
from umie.training import Mixture
from umie.training.mixture import RunSampler, as_mixture


class Numbers(Dataset):
    """A data set of ``size`` queries with lengths."""

    def __init__(self, size, lengths=None):
        self.lengths = list(range(size)) if lengths is None else lengths

    def __len__(self):
        return len(self.lengths)

    def __getitem__(self, index):
        return {"index": index}


sizes = st.lists(st.integers(1, 30), min_size=1, max_size=4)


@given(sizes, st.integers(0, 2**31), st.integers(1, 3))
def test_proportional_draws_every_query_once_per_pass(counts, seed, passes):
    mixture = Mixture([(str(index), Numbers(size), 1.0) for index, size in enumerate(counts)])
    stream = mixture.stream(seed)
    for _ in range(passes):
        assert sorted(itertools.islice(stream, sum(counts))) == list(range(sum(counts)))


@given(sizes, st.sampled_from(["equal", "temperature", "weighted"]), st.integers(0, 2**31))
def test_every_query_of_a_source_is_drawn_before_any_is_repeated(counts, kind, seed):
    weights = [1.0 + index if kind == "weighted" else 1.0 for index in range(len(counts))]
    strategy = "proportional" if kind == "weighted" else kind
    sources = [
        (str(index), Numbers(size), weight) for index, (size, weight) in enumerate(zip(counts, weights, strict=True))
    ]
    mixture = Mixture(sources, strategy, 2.0)
    drawn = list(itertools.islice(mixture.stream(seed), 200))
    for number, name in enumerate(mixture.names):
        own = [index for index in drawn if mixture.source_of(index) == name]
        for start in range(0, len(own) - counts[number] + 1, counts[number]):
            assert len(set(own[start : start + counts[number]])) == counts[number]


@pytest.mark.parametrize(
    ("strategy", "temperature", "weights", "expected"),
    [
        ("proportional", 1.0, (1, 1), (0.9, 0.1)),
        ("proportional", 1.0, (1, 9), (0.5, 0.5)),
        ("equal", 1.0, (1, 1), (0.5, 0.5)),
        ("equal", 1.0, (3, 1), (0.75, 0.25)),
        ("temperature", 2.0, (1, 1), (0.75, 0.25)),  # sqrt(900) : sqrt(100)
        ("temperature", 1.0, (1, 1), (0.9, 0.1)),
    ],
)
def test_sources_are_drawn_in_the_requested_shares(strategy, temperature, weights, expected):
    mixture = Mixture([("large", Numbers(900), weights[0]), ("small", Numbers(100), weights[1])], strategy, temperature)
    assert mixture.probabilities == pytest.approx(expected)
    drawn = Counter(mixture.source_of(index) for index in itertools.islice(mixture.stream(0), 20_000))
    assert drawn["large"] / 20_000 == pytest.approx(expected[0], abs=0.01)


@given(sizes, st.integers(1, 7), st.integers(0, 100), st.booleans())
def test_the_order_depends_only_on_seed_and_step(counts, batch_size, seed, grouped):
    mixture = Mixture([(str(index), Numbers(size), 1.0) for index, size in enumerate(counts)])
    sampler = RunSampler(mixture, 70, batch_size, seed, group_by_length=grouped)
    indices = list(sampler)
    assert len(indices) == len(sampler) == 70 * batch_size
    assert indices == list(sampler)  # each iteration starts over
    for step in (0, 31, 32, 69):
        assert sampler.batch(step) == indices[step * batch_size : (step + 1) * batch_size]
    shorter = RunSampler(mixture, 64, batch_size, seed, group_by_length=grouped)
    assert list(shorter) == indices[: 64 * batch_size]  # complete windows do not depend on num_steps


def test_grouping_by_length_reduces_padding_and_draws_the_same_queries():
    lengths = [(37 * index) % 101 for index in range(320)]
    mixture = as_mixture(Numbers(320, lengths))
    plain, grouped = (RunSampler(mixture, 32, 10, 0, group_by_length=flag) for flag in (False, True))
    assert sorted(plain) == sorted(grouped)

    def padding(sampler):
        return sum(
            max(map(lengths.__getitem__, batch)) * len(batch) - sum(map(lengths.__getitem__, batch))
            for batch in sampler.batches()
        )

    assert padding(grouped) < padding(plain) / 5
    means = [sum(lengths[index] for index in batch) for batch in grouped.batches()]
    assert means != sorted(means)  # batches are in random order


def test_the_source_of_a_query_is_found():
    first, second = Numbers(3), Numbers(2)
    mixture = Mixture([("first", first, 1.0), ("second", second, 1.0)])
    assert [mixture.source_of(index) for index in range(5)] == ["first"] * 3 + ["second"] * 2
    assert mixture.place_of(4) == (second, 1)
    assert mixture.lengths == [0, 1, 2, 0, 1]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (([],), "needs at least one"),
        (([("a", Numbers(1), 0)],), "weight of a is 0"),
        (([("a", Numbers(1), 1.0)], "even"), "strategy is 'even'"),
        (([("a", Numbers(1), 1.0)], "temperature", 0), "temperature is 0"),
    ],
)
def test_invalid_mixtures_are_rejected(arguments, expected):
    with pytest.raises(UmieError, match=expected):
        Mixture(*arguments)
