"""Characters that a tokenizer cannot write, or writes like others: read exactly, or not at all, and counted."""

from __future__ import annotations

import random
from collections import Counter

import pytest
import torch
from families import FAMILIES, LOWER_CASE
from hypothesis import given
from hypothesis import strategies as st

from umie import tasks
from umie.constrained import Constraint
from umie.constrained.suffix_automaton import SpelledAutomaton, SuffixAutomaton
from umie.processor import UmieProcessor
from umie.records import Entity, Record

OPTIONS = {"mner": {"labels": ("person", "place")}}
WORDS = (
    "李雷",
    "北京",
    "Kőrösi",
    "Kűrösi",
    "ő",
    "ű",
    "to",
    "Ann",
    "ann",
    "Café",
    "Cafe\u0301",
    "ＡＢＣ",
    "ABC",
    "{x}",
    ".",
)
texts = st.lists(st.sampled_from(WORDS), min_size=1, max_size=7)


def annotated(words, chosen):
    """Return a record of words, of which the chosen ones are persons."""
    starts = [sum(len(word) + 1 for word in words[:index]) for index in range(len(words))]
    spans = [(starts[index], starts[index] + len(words[index])) for index in chosen]
    return Record(" ".join(words), entities=tuple(Entity("person", span) for span in spans))


def processor_of(family):
    return UmieProcessor(FAMILIES[family](), {"name": "tiny"}, OPTIONS)


def spans_of(record):
    return [entity.span for entity in record.entities]


def read_back(processor, record):
    """Return the spans of the record's own target, read with and without a constraint."""
    (row,) = processor(record, "mner")["labels"].tolist()
    (free,) = processor.decode([row], [record], "mner")
    constraint = processor.constraint(record, "mner")
    (constrained,) = processor.decode([[0, *row]], [record], "mner", constraint)
    return spans_of(free), spans_of(constrained)


def is_single(tokenizer, text, span):
    """Return whether a span has no unknown token, or all parts of the text with its tokens are the same string."""
    found = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    tokens = [
        (token, start, end)
        for token, (start, end) in zip(found.input_ids, found.offset_mapping, strict=True)
        if text[start:end].strip() and tokenizer.convert_ids_to_tokens(token) != "▁"
    ]
    own = [token for token, start, end in tokens if start < span[1] and end > span[0]]
    if tokenizer.unk_token_id not in own:
        return True
    runs = [tokens[first : first + len(own)] for first in range(len(tokens) - len(own) + 1)]
    alike = [run for run in runs if [token for token, _, _ in run] == own]
    return len({text[run[0][1] : run[-1][2]].strip() for run in alike}) == 1


@given(texts, st.data())
@pytest.mark.parametrize("family", ["unigram", "wordpiece", "end_of_word", "byte_level"])
def test_a_target_is_read_as_its_own_spans_or_not_at_all(family, words, data):
    chosen = data.draw(st.lists(st.integers(0, len(words) - 1), max_size=3, unique=True).map(sorted))
    record, processor = annotated(words, chosen), processor_of(family)
    gold = spans_of(record)
    for found in read_back(processor, record):
        assert set(found) <= set(gold)
    free, constrained = read_back(processor, record)
    single = [span for span in gold if is_single(processor.tokenizer, record.text, span)]
    if len(single) == len(gold) and family != "end_of_word":  # in which an unknown token does not end a word
        assert constrained == gold
        assert free == gold


@given(texts, st.integers(0, 10**6))
@pytest.mark.parametrize("family", ["unigram", "wordpiece"])
def test_under_the_grammar_an_unknown_token_stands_only_for_one_string(family, words, seed):
    tokenizer, text = FAMILIES[family](), " ".join(words)
    task, record, rng = tasks.registry.build("mner", **OPTIONS["mner"]), Record(text), random.Random(seed)
    constraint = Constraint(tokenizer, task, [(record, *task.queries(record))], max_new_tokens=60)
    tokens = [0]
    for _ in range(60):
        scores = constraint(torch.tensor([tokens]), torch.zeros(1, len(tokenizer)))
        allowed = (scores[0] > float("-inf")).nonzero().flatten().tolist()
        unknown = [token for token in allowed if token == tokenizer.unk_token_id]
        tokens.append(rng.choice(unknown or allowed))
        if tokens[-1] == constraint.automata[0].end:
            break
    assert tokens[-1] == constraint.automata[0].end
    (answer,) = constraint.read([tokens])
    items = task.parse(answer, Record(text))
    assert items.dropped == 0
    for entity in items:
        assert is_single(tokenizer, text, entity.span)


def test_the_unknown_token_of_two_names_is_neither():
    processor = processor_of("unigram")
    record = annotated(["李雷", "to", "北京"], [2])
    assert read_back(processor, record) == ([], [])
    assert (processor.counts["unwritable_targets"], processor.counts["unwritable_inputs"]) == (1, 1)
    assert processor.counts["dropped_items"] > 0
    assert processor.unwritable["inputs"] == Counter("李雷北京")
    assert processor.unwritable["targets"] == Counter("北京")
    context = annotated(["李雷", "to", "Ann", "北京", "."], [2, 3, 4])
    assert read_back(processor, context)[0] == [(6, 9), (13, 14)]  # 北京 is spelled like 李雷
    same = annotated(["李雷", "to", "李雷"], [2])
    assert read_back(processor, same) == ([(6, 8)], [(6, 8)])
    long = Record("李雷 to Ann 北京 .", entities=(Entity("person", (0, 9)),))
    assert read_back(processor, long) == ([(0, 9)], [(0, 9)])  # its context tells it apart


def test_the_rest_of_a_free_answer_is_not_matched_without_its_unknown_characters():
    processor = processor_of("unigram")
    record = Record("Krsi met Kőrösi and Kűrösi .")
    row = processor.tokenizer("[person: Kőrsi] [place: Krsi]").input_ids
    (found,) = processor.decode([row], [record], "mner")
    assert [(entity.type, entity.text) for entity in found.entities] == [("place", "Krsi")]
    assert processor.counts["dropped_items"] == 1


@pytest.mark.parametrize("family", LOWER_CASE)
def test_spans_that_differ_in_case_are_told_apart_by_their_number(family):
    for chosen in ([0], [2], [0, 2]):
        record = annotated(["Ann", "met", "ANN", "."], chosen)
        assert read_back(processor_of(family), record) == (spans_of(record), spans_of(record))


def test_white_space_that_a_tokenizer_collapses_is_told_apart_by_the_number():
    text = "Ann Lee and Ann  Lee went\tto A\tB or A B"
    for span in ((0, 7), (12, 20), (29, 32), (36, 39)):
        record = Record(text, entities=(Entity("person", span),))
        assert read_back(processor_of("unigram"), record) == ([span], [span])


@pytest.mark.parametrize(
    ("family", "words"),
    [
        ("unigram", ["ＡＢＣ", "and", "ABC", "ﬁn", "fin", "\u212a"]),
        ("byte_level", ["Café", "and", "Cafe\u0301", "ＡＢＣ", "ABC"]),
        ("wordpiece", ["Café", "and", "Cafe\u0301", "cafe", "Cafe\u0301s", "Cafés"]),
    ],
)
def test_forms_of_unicode_come_back_as_in_the_text(family, words):
    for chosen in (*([index] for index in range(len(words))), range(len(words))):
        record = annotated(words, chosen)
        assert read_back(processor_of(family), record) == (spans_of(record), spans_of(record))


@given(st.text("ab12", max_size=12))
def test_the_states_of_spellings_are_those_of_all_substrings_with_it(string):
    spelling = {"1": "?", "2": "?"}
    spelled, exact = SpelledAutomaton(string, spelling), SuffixAutomaton(string)
    for first in range(len(string)):
        state = plain = 0
        for last in range(first, len(string)):
            state = spelled.next[state][spelling.get(string[last], string[last])]
            plain = exact.next[plain][string[last]]
            own = "".join(spelling.get(symbol, symbol) for symbol in string[first : last + 1])
            alike = {
                string[begin : begin + len(own)]
                for begin in range(len(string) - len(own) + 1)
                if "".join(spelling.get(symbol, symbol) for symbol in string[begin : begin + len(own)]) == own
            }
            assert spelled.counts[state] == (exact.counts[plain] if len(alike) == 1 else 0)
