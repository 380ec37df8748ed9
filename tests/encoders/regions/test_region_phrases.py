"""The chunker of noun phrases."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from umie.encoders.regions.phrases import MAX_CHARACTERS, MAX_PHRASES, MAX_WORDS, noun_phrases


@pytest.mark.parametrize(
    ("text", "phrases"),
    [
        ("a man near the red bus", ["man", "red bus"]),
        ("Ann Lee and Bob Ray in front of the Bank of America", ["Ann Lee", "Bob Ray", "front", "Bank of America"]),
        ("kids reading at the Salvation Army", ["kids reading", "Salvation Army"]),
        ("a big Labrador Retriever puppy", ["big", "Labrador Retriever", "puppy"]),
        ("Red buses . Blue cars", ["Red buses", "Blue cars"]),
        ("#ManchesterUnited fans at # OldTrafford", ["Manchester United", "fans", "Old Trafford"]),
        ("the # NBAFinals2016", ["NBA Finals 2016"]),
        ("RT @user : look at http://t.co/a?b=c,d www.x.org cats", ["cats"]),
        ("Ann 's dog, Bob's cat", ["Ann", "dog", "Bob", "cat"]),
        ("JUSTIN BIEBER IS HERE", ["JUSTIN BIEBER"]),
        ("iPhone and YouTube", ["iPhone", "YouTube"]),
        ("the ManchesterUnited shirt", ["Manchester United", "shirt"]),
        ("Procter & Gamble bottles &amp; cans", ["Procter & Gamble", "bottles", "cans"]),
        ("Bank of", ["Bank"]),
        ("cats, Cats and CATS", ["cats"]),
        ("one two three four five six seven", ["two three four five six", "seven"]),
        ("café in Köln, 東京 2016", ["café", "Köln", "東京 2016"]),
        ("5th Avenue at Euro 2016", ["5th Avenue", "Euro 2016"]),
        ("2016 !!! 100 %", []),
        ("you and me", []),
        ("", []),
        ("x" * (MAX_CHARACTERS + 1), []),
    ],
)
def test_phrases(text, phrases):
    assert noun_phrases(text) == phrases


def test_at_most_so_many():
    text = ", ".join(f"thing{letter}" for letter in "abcdefghijklmnopqrstuvwxyz")
    assert len(noun_phrases(text)) == MAX_PHRASES
    assert noun_phrases(text, 2) == ["thinga", "thingb"]


PIECES = [
    "#",
    "@",
    "&",
    "of",
    "the",
    "The",
    "Ann",
    "'s",
    "’",
    "http://",
    "www.",
    "aB",
    "AbcDef",
    ".",
    "-",
    "é",
    "東",
    "_",
]
texts = st.text(max_size=60) | st.lists(st.sampled_from([*PIECES, " "]), max_size=40).map("".join)


@given(texts, st.integers(1, 20))
def test_any_text(text, most):
    phrases = noun_phrases(text, most)
    assert phrases == noun_phrases(text, 1000)[:most]
    assert len({phrase.casefold() for phrase in phrases}) == len(phrases)
    letters = re.sub(r"\s", "", text)
    for phrase in phrases:
        assert 0 < len(phrase) <= MAX_CHARACTERS
        assert phrase == " ".join(phrase.split())
        assert any(map(str.isalpha, phrase))
        assert all(word in letters for word in phrase.split())
        assert len(phrase.split()) <= MAX_WORDS
