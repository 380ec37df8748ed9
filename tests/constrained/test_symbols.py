"""Texts in a tokenizer's symbols, and annotated answers under a constraint."""

from __future__ import annotations

import copy

import pytest
from families import FAMILIES
from hypothesis import given
from hypothesis import strategies as st
from published import FILES, published
from random_records import PIECES
from tokenizers import processors

from umie import tasks
from umie.constrained import Constraint, symbols_of
from umie.errors import UmieError
from umie.records import Entity, Record

TEXTS = st.lists(st.sampled_from(PIECES) | st.text(st.characters(exclude_categories=["Cs"]), max_size=3), max_size=10)
ENDLESS = 10_000


@pytest.mark.parametrize("family", FAMILIES)
@given(TEXTS.map("".join))
def test_every_symbol_has_offsets_in_the_text(family: str, text: str) -> None:
    view = symbols_of(FAMILIES[family]()).view(text)
    assert len(view.symbols) == len(view.starts) == len(view.ends)
    assert all(0 <= start <= end <= len(text) for start, end in zip(view.starts, view.ends, strict=True))
    assert list(view.starts) == sorted(view.starts)
    assert list(view.ends) == sorted(view.ends)


@pytest.mark.parametrize("family", ["unigram", "wordpiece", "end_of_word"])
@pytest.mark.parametrize(
    "text", ["Ann Lee met Will … in NY", "… ½ Ann Lee", "ﬁne  Ann Lee 😀 x", "É Ann Lee", "Ann Lee"]
)
def test_words_keep_their_offsets_in_a_text_that_the_tokenizer_changes(family: str, text: str) -> None:
    start = text.index("Ann Lee")
    record = Record(text, entities=(Entity("person", (start, start + 7)),))
    task = tasks.registry.build("mner")
    (query,) = task.queries(record)
    (automaton,) = Constraint(FAMILIES[family](), task, [(record, query)], 64).automata
    symbols = symbols_of(FAMILIES[family]())
    tokens = [*symbols.prefix, *symbols.encode(query.answer), automaton.end]
    assert refused(automaton, tokens) is None
    assert automaton.read(tokens) == "[person: Ann Lee]"
    assert "  " not in symbols.view(text).symbols


def refused(automaton, tokens) -> int | None:
    state = automaton.start
    for position, token in enumerate(tokens):
        if token not in automaton.tokens(state, ENDLESS):
            return position
        state = automaton.next(state, token)
    return None


def check_published(family: str, style: str, format_name: str, file: str, stride: int) -> int:
    """Check that every annotated answer is admitted and read back exactly; return the number of answers."""
    tokenizer = FAMILIES[family]()
    symbols = symbols_of(tokenizer)
    records = published(format_name, file)
    num_checked = 0
    for name in records[0].tasks or ():
        usual = tasks.registry.build(name)
        labels = dict.fromkeys([*usual.labels, *(label for record in records for label in usual.used_labels(record))])
        task = tasks.registry.build(name, labels=list(labels), style=style)
        for record in records[::stride]:
            for query in task.queries(record):
                (automaton,) = Constraint(tokenizer, task, [(record, query)], 64).automata
                tokens = [*symbols.prefix, *symbols.encode(query.answer, task.style.markers), automaton.end]
                assert refused(automaton, tokens) is None, (record.text, query.answer)
                assert automaton.read(tokens) == query.answer
                num_checked += 1
    return num_checked


@pytest.mark.parametrize(("format_name", "file"), FILES)
def test_some_published_answers_can_be_reached(format_name: str, file: str) -> None:
    assert check_published("project", "structured", format_name, file, stride=100) >= 2


@pytest.mark.slow
@pytest.mark.parametrize(("format_name", "file"), FILES)
@pytest.mark.parametrize("style", ["structured", "paper", "released"])
@pytest.mark.parametrize("family", ["project", "unigram"])
def test_published_answers_can_be_reached(family: str, style: str, format_name: str, file: str) -> None:
    """All records in the default style, every twentieth in the others, where each pair of MRE has its own literals."""
    stride = 1 if style == "structured" else 20
    checked = check_published(family, style, format_name, file, stride)
    assert checked >= len(published(format_name, file)) / (2 * stride)


def test_symbols_are_cached_until_tokens_are_added() -> None:
    tokenizer = copy.deepcopy(FAMILIES["byte_level"]())
    first = symbols_of(tokenizer)
    assert symbols_of(tokenizer) is first
    tokenizer.add_tokens(["<new>"], special_tokens=True)
    assert "<new>" in symbols_of(tokenizer).markers


def test_a_tokenizer_without_an_end_token_is_refused(tokenizer) -> None:
    endless = copy.deepcopy(tokenizer)
    endless.backend_tokenizer.post_processor = processors.Sequence([])
    endless.eos_token = None
    with pytest.raises(UmieError, match="has no end token: set eos_token"):
        symbols_of(endless)
