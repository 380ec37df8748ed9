"""The suffix automaton accepts only the substrings of its string, and counts them correctly."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from umie.constrained.suffix_automaton import SuffixAutomaton


def state_of(automaton: SuffixAutomaton, string: str) -> int | None:
    state = 0
    for symbol in string:
        if symbol not in automaton.next[state]:
            return None
        state = automaton.next[state][symbol]
    return state


def occurrences(text: str, string: str) -> int:
    return sum(text.startswith(string, start) for start in range(len(text)))


@given(
    st.text("ab", max_size=24) | st.text("abc\u0100", max_size=24) | st.text(max_size=12), st.text("abc", max_size=6)
)
def test_it_accepts_the_substrings_and_counts_them(text: str, other: str) -> None:
    automaton = SuffixAutomaton(text)
    substrings = {text[start:end] for start in range(len(text)) for end in range(start + 1, len(text) + 1)}
    for string in substrings:
        state = state_of(automaton, string)
        assert state is not None
        assert automaton.counts[state] == occurrences(text, string)
        following = {
            text[place + len(string)] for place in range(len(text) - len(string)) if text[place:].startswith(string)
        }
        assert set(automaton.next[state]) == following
    assert (state_of(automaton, other) is not None) == (other in text)
    for string in substrings:
        assert state_of(automaton, string + "\u0101") is None


@given(st.text("ab", min_size=1, max_size=60))
def test_its_size_is_linear(text: str) -> None:
    automaton = SuffixAutomaton(text)
    assert len(automaton.next) <= 2 * len(text) + 1
    assert sum(map(len, automaton.next)) <= 3 * len(text) + 2


def test_the_automaton_of_an_empty_string() -> None:
    assert SuffixAutomaton("").next == [{}]
