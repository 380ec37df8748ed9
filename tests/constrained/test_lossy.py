"""Answers of tokenizers that do not preserve text: read with the text's own characters, without corrections."""

from __future__ import annotations

import pytest
from families import FAMILIES, LOWER_CASE
from hypothesis import given
from hypothesis import strategies as st

from umie.constrained import encode
from umie.processor import UmieProcessor
from umie.records import Record

TEXT = "Ann Lee met ann lee in New-York and Bob ."
RECORD = Record(text=TEXT)
OPTIONS = {"mner": {"labels": ("person", "Place")}}


def found(answer, family="wordpiece"):
    """Return the mentions of an answer, and the number of dropped items."""
    tokenizer = FAMILIES[family]()
    processor = UmieProcessor(tokenizer, {"name": "tiny"}, OPTIONS)
    tokens = encode(tokenizer, answer) if isinstance(answer, str) else answer
    (answered,) = processor.decode([tokens], [RECORD], "mner")
    return [(item.type, item.span) for item in answered.entities], processor.counts["dropped_items"]


@pytest.mark.parametrize("family", LOWER_CASE)
@pytest.mark.parametrize(
    ("answer", "mentions", "dropped"),
    [
        ("[person: Ann Lee] [Place: New-York]", [("person", (0, 7)), ("Place", (23, 31))], 0),
        ("[person: ANN LEE]", [("person", (0, 7))], 0),
        ("[person: ann lee]2", [("person", (12, 19))], 0),
        ("[person: Ann Lee]3", [], 1),  # the text has two
        ("[person: New-York] [person: Eve]", [("person", (23, 31))], 1),
        ("[person: New-York] [robot: Ann]", [("person", (23, 31))], 1),  # not a label of the schema
        ("[person: New-York] and so on", [("person", (23, 31))], 1),
        ("[person: New-York] [person: Ann", [("person", (23, 31))], 1),
        ("person: Bob]", [], 1),
        ("", [], 0),
    ],
)
def test_tokens_are_matched_against_the_text(family, answer, mentions, dropped):
    read, lost = found(answer, family)
    assert read == mentions
    assert (lost > 0) == (dropped > 0)


@given(st.data())
@pytest.mark.parametrize("family", LOWER_CASE)
def test_any_tokens_can_be_read(family, data):
    """Nothing raises, and every mention is in the decoded string, up to case and spaces."""
    tokenizer = FAMILIES[family]()
    good = encode(tokenizer, "[person: Ann Lee] [Place: New-York] [person: Bob]2")
    some = st.one_of(st.sampled_from(good), st.integers(0, len(tokenizer) - 1))
    tokens = data.draw(st.lists(some, max_size=20))
    mentions, _ = found(tokens, family)
    said = tokenizer.decode(tokens, skip_special_tokens=True).lower().replace(" ", "")
    for label, (start, end) in mentions:
        assert f"{label}:{TEXT[start:end]}".lower().replace(" ", "") in said
