"""Normalization of texts, and the join that finds near duplicates."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from umie.audit.texts import SHINGLE, near_duplicates, normalize
from umie.errors import UmieError

WORDS = st.sampled_from(["ann lee", "in rome", " today", "nasa", "x", "🙂", "é"])
TEXTS = st.lists(st.lists(WORDS, min_size=1, max_size=6).map(" ".join), unique=True, max_size=12)


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ("Ann Lee in Rome", "ann lee  in rome"),
        ("# NBA : @ Ann", "#NBA: @Ann"),
        ("Ann http://t.co/RdsxE7efDz", "Ann http://t.co/other"),
        ("Ann http://t. co/RdsxE7efDz # CFC", "Ann https://t.co/x #CFC"),
        ("Ann http…", "Ann"),
        ("ＡＮＮ", "ann"),
    ],
)
def test_copies_are_the_same(left, right):
    assert normalize(left) == normalize(right)


@pytest.mark.parametrize(
    ("left", "right"),
    [("Ann met Bob", "Bob met Ann"), ("http://t.co/a", "http://t.co/b"), ("Ann co/x", "Ann"), ("🙂", "🙃")],
)
def test_others_are_not(left, right):
    assert normalize(left) != normalize(right)


def similarity(left, right):
    """Return the Jaccard similarity of sets of strings, as a reference."""

    def shingles(text):
        return {text[start : start + SHINGLE] for start in range(max(1, len(text) - SHINGLE + 1))}

    return len(shingles(left) & shingles(right)) / len(shingles(left) | shingles(right))


@given(TEXTS, st.sampled_from([0.1, 0.34, 0.5, 0.8, 1.0]))
def test_the_join_is_exact(texts, threshold):
    found = {(left, right): value for left, right, value in near_duplicates(texts, threshold)}
    expected = {
        (left, right): similarity(texts[left], texts[right])
        for right in range(len(texts))
        for left in range(right)
        if similarity(texts[left], texts[right]) >= threshold
    }
    assert found == pytest.approx(expected)


def test_nothing_and_one():
    assert list(near_duplicates([])) == []
    assert list(near_duplicates(["ann"])) == []
    assert list(near_duplicates(["", "ann"])) == []


@pytest.mark.parametrize("threshold", [0, -1, 1.1])
def test_bad_thresholds(threshold):
    with pytest.raises(UmieError, match="threshold is"):
        list(near_duplicates(["a", "b"], threshold))
