"""Constraints on tokenizer families, tasks and styles: gold answers are admitted, and admitted answers are valid."""

from __future__ import annotations

import random
import re
from typing import Any

import pytest
import torch
from families import FAMILIES, LOWER_CASE, words
from random_records import asked_about, losses, random_record

from umie import tasks
from umie.constrained import Constraint, symbols_of
from umie.errors import UmieError
from umie.records import Argument, Entity, Event, Record, Region, Relation
from umie.tasks import Query, Task, styles

STYLES = [name for name, style in styles.STYLES.items() if style.calls is None]  # test_calls.py has the others
TASKS = ("mner", "mre", "med", "meae")
LOSSLESS = ("project", "byte_level", "byte_fallback", "bytes")
ENDLESS = 10_000
NUM_RECORDS = 30
FAMILIES_AND_STYLES = [pytest.param(family, style, id=f"{family}-{style}") for family in FAMILIES for style in STYLES]
# every pair of family and task, of family and style, and of style and task
PAIRWISE = [
    pytest.param(family, style, task, id=f"{family}-{style}-{task}")
    for row, family in enumerate(FAMILIES)
    for column, task in enumerate(TASKS)
    for style in [STYLES[(row + column) % len(STYLES)]]
]

TEXT = "NY [to] NY — Ann |Lee's café"
RECORD = Record(
    TEXT,
    regions=(Region((0, 0, 0.5, 0.5)), Region((0, 0, 0.6, 0.5))),
    entities=(Entity("person", (13, 16)), Entity("location", (8, 10)), Entity("miscellaneous", (3, 7))),
    relations=(Relation("part of", (0, 2), (8, 10)),),
    events=(Event("attack", (13, 16), (Argument("Place", (0, 2)), Argument("Target", regions=(1,)))), Event("meet")),
)


def constraint(family: str, task: Task[Any], record: Record, query: Query, limit: int = 64) -> Constraint:
    return Constraint(FAMILIES[family](), task, [(record, query)], limit)


def gold_tokens(family: str, task: Task[Any], query: Query) -> list[int]:
    symbols = symbols_of(FAMILIES[family]())
    assert symbols.end is not None
    return [*symbols.prefix, *symbols.encode(query.answer, task.style.markers), symbols.end]


def first_refused(automaton: Any, tokens: list[int]) -> int | None:
    state = automaton.start
    for position, token in enumerate(tokens):
        if token not in automaton.tokens(state, ENDLESS):
            return position
        state = automaton.next(state, token)
    return None


def wander(automaton: Any, rng: random.Random, limit: int) -> list[int]:
    """Return randomly chosen admitted tokens up to the end."""
    state, tokens = automaton.start, []
    for remaining in range(limit, 0, -1):
        admitted = automaton.tokens(state, remaining)
        assert admitted
        tokens.append(rng.choice(admitted))
        if tokens[-1] == automaton.end:
            return tokens
        state = automaton.next(state, tokens[-1])
    raise AssertionError(f"no end within {limit} tokens: {tokens}")


@pytest.mark.parametrize(("family", "style", "name"), PAIRWISE)
def test_the_gold_answer_is_admitted_and_read_back(family: str, style: str, name: str) -> None:
    task = tasks.registry.build(name, style=style)
    for query in task.queries(RECORD):
        (automaton,) = constraint(family, task, RECORD, query).automata
        tokens = gold_tokens(family, task, query)
        assert first_refused(automaton, tokens) is None
        assert automaton.read(tokens) == query.answer
        needed = len(tokens)  # it is also admitted with exactly this limit
        state = automaton.start
        for position, token in enumerate(tokens):
            assert token in automaton.tokens(state, needed - position)
            state = automaton.next(state, token)


def is_kept(family: str, text: str) -> bool:
    """Return whether the tokenizer preserves a text, up to case and repeated white space if it drops them."""
    expected = text.strip()
    if family not in LOSSLESS:
        expected = " ".join(expected.split())
    if family in LOWER_CASE:
        expected = expected.lower()
    return symbols_of(FAMILIES[family]()).view(text).symbols.strip() == expected.encode().decode("latin-1")


@pytest.mark.parametrize(("family", "style"), FAMILIES_AND_STYLES)
def test_random_gold_answers_are_admitted(family: str, style: str) -> None:
    num_admitted = 0
    for seed in range(NUM_RECORDS):
        record, labels = random_record(random.Random(f"gold/{seed}").randint)
        for name in TASKS:
            task, plain = (tasks.registry.build(name, labels=labels, style=kind) for kind in (style, "structured"))
            for query, plainly in zip(task.queries(record), plain.queries(record), strict=True):
                spans = [
                    item.filler for item in styles.STYLES["structured"].parse(plainly.answer, None)[0] if item.filler
                ]  # type: ignore[arg-type]
                if any(span != span.strip() for span in spans) or any(
                    marker in record.text for marker in task.style.markers
                ):
                    continue  # spans do not begin or end with white space, and contain no marker
                if family == "end_of_word" and any(_is_inside_a_word(record.text, span) for span in spans):
                    continue  # a token cannot end inside a word
                if not is_kept(family, record.text):
                    continue
                try:
                    (automaton,) = constraint(family, task, record, query).automata
                except UmieError:
                    assert style == "paper" or family in LOWER_CASE
                    continue
                tokens = gold_tokens(family, task, query)
                assert first_refused(automaton, tokens) is None, (record.text, query.answer)
                if family not in LOWER_CASE and "identically" not in str(losses(task, record, plainly)):
                    assert automaton.read(tokens) == query.answer
                num_admitted += 1
    assert num_admitted > (NUM_RECORDS if family in LOSSLESS else 3)


def _is_inside_a_word(text: str, span: str) -> bool:
    return bool(re.search(rf"\w{re.escape(span)}|{re.escape(span)}\w", text))


@pytest.mark.parametrize(("family", "style", "name"), PAIRWISE)
def test_any_admitted_answer_ends_in_time_and_parses(family: str, style: str, name: str) -> None:
    num_spans = 0
    for seed in range(25):
        rng = random.Random(f"{name}/{seed}")
        record, labels = random_record(rng.randint)
        task = tasks.registry.build(name, labels=labels, style=style)
        for query in task.queries(record):
            try:
                (automaton,) = constraint(family, task, record, query).automata
            except UmieError as error:
                assert "identically" in str(error)
                break
            smallest = min(automaton.start.distances)
            for limit in {smallest, smallest + 1, smallest + 3, 10, 16, 24, 40, 64, 160}:
                if limit < smallest:
                    continue
                tokens = wander(automaton, rng, limit)
                output = automaton.read(tokens)
                found = task.parse(output, record, query.target)
                assert found.dropped == 0, (record.text, output)
                assert {_label(item) for item in found} <= set(labels), output
                num_spans += len(task.with_items(record, found).entities) if name == "mner" else len(found)
                if task.answer_schema(record, query.target).at_least_one:
                    assert found
    assert num_spans > 15


def _label(item: Any) -> str:
    return str(item.arguments[0].role if isinstance(item, Event) and item.arguments else item.type)


def test_small_budgets_are_kept() -> None:
    task = tasks.registry.build("mner")
    (query,) = task.queries(RECORD)
    (automaton,) = constraint("project", task, RECORD, query).automata
    assert automaton.tokens(automaton.start, 1) == [automaton.end]
    for limit in range(1, 30):
        for seed in range(20):
            assert len(wander(automaton, random.Random(seed), limit)) <= limit


@pytest.mark.parametrize("family", FAMILIES)
def test_a_repeated_span_admits_only_existing_numbers(family: str) -> None:
    record = Record("ny met ny and ny")
    task = tasks.registry.build("mner", labels=["location"])
    (query,) = task.queries(record)
    (automaton,) = constraint(family, task, record, query).automata
    symbols = symbols_of(FAMILIES[family]())
    for number, admitted in ((1, False), (2, True), (3, True), (4, False), (12, False)):
        target = f"[location: ny]{number}"
        tokens = [*symbols.prefix, *symbols.encode(target), automaton.end]
        assert (first_refused(automaton, tokens) is None) == admitted, target
        if admitted:
            (entity,) = task.parse(automaton.read(tokens), record)
            assert entity.span[0] == [m.start() for m in re.finditer("ny", record.text)][number - 1]
    unnumbered = [*symbols.prefix, *symbols.encode("[location: met]2"), automaton.end]
    assert first_refused(automaton, unnumbered) is not None


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("num_regions", [0, 1, 2, 12])
def test_only_regions_that_exist_are_admitted(style: str, num_regions: int) -> None:
    regions = [Region((0, 0, (index + 1) / 20, 1)) for index in range(num_regions)]
    record = Record("Ann", regions=regions, events=(Event("meet"),))
    task = tasks.registry.build("meae", style=style)
    (query,) = task.queries(record)
    (automaton,) = constraint("project", task, record, query).automata
    symbols = symbols_of(FAMILIES["project"]())
    for number in (1, 2, 3, 10, 12, 13):
        argument = Argument("Target", regions=(number - 1,))
        many = [Region((0, 0, (index + 1) / 20, 1)) for index in range(number)]
        (gold,) = task.queries(Record("Ann", regions=many, events=(Event("meet", None, (argument,)),)))
        tokens = [*symbols.encode(gold.answer, task.style.markers), automaton.end]
        assert (first_refused(automaton, tokens) is None) == (number <= num_regions), number


@pytest.mark.parametrize(("family", "style"), [param.values[:2] for param in PAIRWISE if param.values[2] == "mner"])
def test_labels_set_at_call_time_are_the_only_ones(family: str, style: str) -> None:
    record = Record("Ann met Bob in NY", entities=(Entity("space ship, big", (0, 3)),))
    new, usual = (tasks.registry.build("mner", labels=labels, style=style) for labels in (["space ship, big"], None))
    (query,) = new.queries(record)
    tokens = gold_tokens(family, new, query)
    assert first_refused(constraint(family, new, record, query).automata[0], tokens) is None
    assert first_refused(constraint(family, usual, record, query).automata[0], tokens) is not None


@pytest.mark.parametrize("family", LOWER_CASE)
def test_labels_with_the_same_tokens_are_refused(family: str) -> None:
    task = tasks.registry.build("mner", labels=["Person", "person"])
    (query,) = task.queries(RECORD)
    with pytest.raises(UmieError, match=r"encodes the labels 'Person' and 'person' identically: rename one label"):
        constraint(family, task, RECORD, query)
    constraint("project", task, RECORD, query)


@pytest.mark.parametrize("family", ["project", "wordpiece", "bytes"])
def test_labels_can_have_thousands_of_characters(family: str) -> None:
    label = " ".join(["a real or fictional person named in the text"] * 90)
    task = tasks.registry.build("mner", labels=(label, "location"))
    record = Record("Ann met Bob in Rome", entities=(Entity(label, (0, 3)), Entity("location", (15, 19))))
    tokenizer = FAMILIES[family]()
    (query,) = task.queries(record)
    tokens = tokenizer(query.answer, verbose=False).input_ids[:-1]  # without the end token
    constraint = Constraint(tokenizer, task, [(record, query)], max_new_tokens=len(tokens) + 1)
    for place, allowed in enumerate(constraint.allowed(0, tokens)):
        assert tokens[place] in allowed
    assert list(task.parse(*constraint.read([[0, *tokens]]), record)) == list(record.entities)


def test_an_unknown_kind_of_tokenizer_is_refused() -> None:
    task = tasks.registry.build("mner")
    with pytest.raises(UmieError, match="cannot be constrained: its tokens are neither") as caught:
        Constraint(words(), task, [(RECORD, task.queries(RECORD)[0])], 64)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("family", LOWER_CASE)
def test_reading_restores_characters_that_the_tokenizer_drops(family: str) -> None:
    record = Record("ÉCOLE 🎉 Ann met", entities=(Entity("person", (0, 5)), Entity("person", (6, 11))))
    task = tasks.registry.build("mner")
    (query,) = task.queries(record)
    (automaton,) = constraint(family, task, record, query).automata
    assert automaton.read(gold_tokens(family, task, query)) == query.answer


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("text", ["a" + " " * 3000 + "b", "a" * 3000, "😀" * 1500], ids=["spaces", "letters", "emoji"])
def test_a_long_run_of_one_character_does_not_recurse_deeply(family: str, text: str) -> None:
    record = Record(text)
    task = tasks.registry.build("mner")
    (automaton,) = constraint(family, task, record, task.queries(record)[0]).automata
    for seed in range(5):
        found = task.parse(automaton.read(wander(automaton, random.Random(seed), 40)), Record(text))
        assert found.dropped == 0


@pytest.mark.parametrize(("family", "style"), FAMILIES_AND_STYLES)
def test_a_span_contains_no_marker_of_its_style(family: str, style: str) -> None:
    record = Record("x <spot> y <extra_id_1> z <extra_id_5> w")
    task = tasks.registry.build("mner", style=style)
    (automaton,) = constraint(family, task, record, task.queries(record)[0]).automata
    for seed in range(40):
        output = automaton.read(wander(automaton, random.Random(seed), 30))
        found = task.parse(output, record)
        assert found.dropped == 0, output
        assert not any(marker in entity.text for entity in found for marker in task.style.markers)


def test_only_scores_of_refused_tokens_become_minus_infinity() -> None:
    task = tasks.registry.build("mner")
    (query,) = task.queries(RECORD)
    made = Constraint(FAMILIES["project"](), task, [(RECORD, query), (Record("Bo"), query)], 8)
    scores = torch.randn(4, len(FAMILIES["project"]()))  # two beams per row
    masked = made(torch.zeros(4, 1, dtype=torch.long), scores)  # type: ignore[arg-type]
    for row in range(4):
        automaton = made.automata[row // 2]
        admitted = automaton.tokens(automaton.start, 8)
        assert masked[row].isfinite().nonzero().flatten().tolist() == sorted(admitted)
        assert torch.equal(masked[row, admitted], scores[row, admitted])


@pytest.mark.parametrize("rows", [1, 3])
def test_the_batch_of_another_constraint_is_refused(rows: int) -> None:
    task = tasks.registry.build("mner")
    (query,) = task.queries(RECORD)
    made = Constraint(FAMILIES["project"](), task, [(RECORD, query)] * 2, 8)
    with pytest.raises(UmieError, match=f"{rows} rows for 2 queries"):
        made(torch.zeros(rows, 1, dtype=torch.long), torch.zeros(rows, 9))  # type: ignore[arg-type]
    with pytest.raises(UmieError, match=f"{rows} rows for 2 queries"):
        made.read([[0, 1]] * rows)


def test_gold_answers_are_read_back_as_the_annotated_items() -> None:
    for name in TASKS:
        task = tasks.registry.build(name)
        for query in task.queries(RECORD):
            (automaton,) = constraint("wordpiece", task, RECORD, query).automata
            output = automaton.read(gold_tokens("wordpiece", task, query))
            assert set(task.parse(output, RECORD, query.target)) == asked_about(task, RECORD, query)
