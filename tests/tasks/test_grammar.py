"""The `structured` output style, and occurrences of strings in texts."""

from __future__ import annotations

from typing import Any, SupportsIndex

import pytest
from hypothesis import given
from hypothesis import strategies as st

from umie.tasks import grammar
from umie.tasks.grammar import AnswerSchema, ParsedItem
from umie.tasks.styles import STYLES

STRUCTURED = STYLES["structured"]
SCHEMA = AnswerSchema(labels=("a",))

# special characters are frequent, so that escapes and false ends occur
SIGNS = st.sampled_from(list("|[]:= O1290\n\t\xa0é😀\u200b"))
STRINGS = st.text(SIGNS | st.characters(exclude_categories=["Cs"]), max_size=12)
LABELS = STRINGS.map(str.strip).filter(bool)
PLACES = st.lists(st.integers(1, 999).map("O{}".format), min_size=1, max_size=3).map(tuple)
ITEMS = st.one_of(
    st.builds(ParsedItem, LABELS),
    st.builds(ParsedItem, LABELS, STRINGS, PLACES | st.just(()), st.integers(1, 999_999)),
    st.builds(ParsedItem, LABELS, st.none(), PLACES),
)


@pytest.mark.parametrize(
    ("items", "expected"),
    [
        ([], ""),
        ([ParsedItem("person", "Ann Lee")], "[person: Ann Lee]"),
        ([ParsedItem("location", "NY", occurrence=2)], "[location: NY]2"),
        ([ParsedItem("member of")], "[member of]"),
        ([ParsedItem("Target", places=("O1",))], "[Target = O1]"),
        ([ParsedItem("person", "Ann: Lee", ("O1", "O3"), 2)], "[person = O1 O3: Ann: Lee]2"),
        ([ParsedItem("a", "b"), ParsedItem("c", "d")], "[a: b] [c: d]"),
        ([ParsedItem("a:b=c", "d:e=f")], "[a|:b|=c: d:e=f]"),
        ([ParsedItem("a[b]|", "[c]|d")], "[a|[b|]||: |[c|]||d]"),
        ([ParsedItem("a", " b ")], "[a:  b ]"),
    ],
    ids=[
        "none",
        "span",
        "second occurrence",
        "label",
        "region",
        "span and regions",
        "two",
        "signs",
        "brackets",
        "spaces",
    ],
)
def test_the_written_form(items: list[ParsedItem], expected: str) -> None:
    assert STRUCTURED.linearize(items) == expected
    assert STRUCTURED.parse(expected, SCHEMA) == (items, 0)


@given(st.lists(ITEMS, max_size=6))
def test_any_items_survive_writing_and_reading(items: list[ParsedItem]) -> None:
    assert STRUCTURED.parse(STRUCTURED.linearize(items), SCHEMA) == (items, 0)


@given(st.text(SIGNS, max_size=60) | st.text(max_size=60))
def test_any_string_is_read(output: str) -> None:
    items, dropped = STRUCTURED.parse(output, SCHEMA)
    assert all(item.label and item.occurrence >= 1 for item in items)
    assert len(items) <= output.count("[")
    assert 0 <= dropped <= 2 * output.count("[") + 1


@given(st.text(SIGNS, max_size=60))
def test_parsed_items_survive_writing_and_parsing(output: str) -> None:
    items, _ = STRUCTURED.parse(output, SCHEMA)
    items = [item for item in items if not item.places]  # a region's name is never escaped
    assert STRUCTURED.parse(STRUCTURED.linearize(items), SCHEMA) == (items, 0)


@pytest.mark.parametrize(
    ("output", "items", "dropped"),
    [
        ("", [], 0),
        (" \n", [], 0),
        ("person", [], 1),
        ("[", [], 1),
        ("[]", [], 1),
        ("[: x]", [], 1),
        ("[person: Ann", [], 1),
        ("[person: Ann|]", [], 1),
        ("[person: Ann]0", [], 1),
        ("[person: Ann]1234567", [], 1),
        ("[person: Ann]" + "9" * 5000, [], 1),
        ("[person: A [location: B]", [ParsedItem("location", "B")], 1),
        ("well [person: Ann] then", [ParsedItem("person", "Ann")], 2),
        ("[person:Ann][ location :B]", [ParsedItem("person", "Ann"), ParsedItem("location", "B")], 0),
        ("[Target=O1]", [ParsedItem("Target", places=("O1",))], 0),
        ("[a: b: c = d]", [ParsedItem("a", "b: c = d")], 0),
        ("[a: b]²", [ParsedItem("a", "b")], 1),
        ("[a: b]٣", [ParsedItem("a", "b")], 1),
    ],
)
def test_ill_formed_pieces_are_dropped_and_counted(output: str, items: list[ParsedItem], dropped: int) -> None:
    assert STRUCTURED.parse(output, SCHEMA) == (items, dropped)


class CountingString(str):
    """A string that counts how many of its characters are looked at, searches included."""

    looked_at = 0

    def __getitem__(self, key: SupportsIndex | slice) -> str:
        found = super().__getitem__(key)
        self.looked_at += max(len(found), 1)
        return found

    def find(self, *arguments: Any) -> int:
        found = super().find(*arguments)
        start = arguments[1] if len(arguments) > 1 else 0
        self.looked_at += (len(self) if found < 0 else found) - start + 1
        return found


def characters_looked_at(output: str) -> int:
    counting = CountingString(output)
    STRUCTURED.parse(counting, SCHEMA)
    return counting.looked_at


@pytest.mark.parametrize(
    "piece",
    [
        "[",
        "]",
        "|",
        "x",
        " ",
        "1",
        "[a",
        "[a:",
        "[a: b",
        "[a: b]",
        "[a]1",
        "[]",
        "[[]",
        "[|",
        "]1",
        "[a: |]",
        "a]b[",
    ],
)
@pytest.mark.parametrize("head", ["", "[", "[a: ", "[a]"])
def test_reading_looks_at_each_character_a_bounded_number_of_times(head: str, piece: str) -> None:
    short = characters_looked_at(head + piece * 200)
    long = characters_looked_at(head + piece * 2000)
    assert 0 < short <= 4 * len(head + piece * 200)
    assert long <= 10.5 * short


@given(st.data())
def test_any_span_is_found_again(data: st.DataObject) -> None:
    text = data.draw(st.text("ab ", min_size=1, max_size=20) | STRINGS.filter(bool))
    start = data.draw(st.integers(0, len(text) - 1))
    span = (start, data.draw(st.integers(start + 1, len(text))))
    number = grammar.occurrence_of(text, span)
    assert grammar.locate(text, text[slice(*span)], number) == span


def test_occurrences_may_overlap() -> None:
    assert [grammar.occurrence_of("aaaa", (start, start + 2)) for start in range(3)] == [1, 2, 3]
    assert [grammar.locate("aaaa", "aa", number) for number in (1, 2, 3, 4)] == [(0, 2), (1, 3), (2, 4), None]


@pytest.mark.parametrize(
    ("surface", "occurrence", "span"),
    [
        ("New  York", 1, (3, 11)),
        (" New York ", 2, (15, 23)),
        ("New\nYork", 2, (15, 23)),
        ("New York", 3, None),
        ("NewYork", 1, None),
        ("new york", 1, None),
        ("", 1, None),
        ("(", 1, None),
    ],
)
def test_only_whitespace_may_differ(surface: str, occurrence: int, span: tuple[int, int] | None) -> None:
    assert grammar.locate("in New York or New York", surface, occurrence) == span


@given(st.text("ab ", min_size=1, max_size=200), st.data())
def test_occurrences_are_those_of_trying_every_position(text: str, data: st.DataObject) -> None:
    start = data.draw(st.integers(0, len(text) - 1))
    span = start, data.draw(st.integers(start + 1, len(text)))
    surface = text[slice(*span)]
    number = grammar.occurrence_of(text, span)
    assert number == sum(text.startswith(surface, position) for position in range(start + 1))
    assert grammar.locate(text, surface, number) == span


class CountingText(str):
    """A string that counts its searches."""

    searches = 0

    def find(self, *arguments: Any) -> int:
        CountingText.searches += 1
        return super().find(*arguments)


def test_a_string_is_searched_once() -> None:
    CountingText.searches = 0
    text = CountingText("a " * 500)
    for number in range(1, 501):
        assert grammar.locate(text, "a", number) == (2 * number - 2, 2 * number - 1)
    assert CountingText.searches <= 501
