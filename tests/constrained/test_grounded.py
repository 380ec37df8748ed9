"""Grounded answers, ``[person = O1 O3: Ann]``: what is admitted, what is read back, and what cannot be written."""

import random
import sys
from pathlib import Path

import pytest

from umie import tasks
from umie.constrained import Constraint
from umie.errors import UmieError
from umie.records import Entity, Record, Region, Relation

sys.path.insert(0, str(Path(__file__).resolve().parent))
from families import FAMILIES, LOWER_CASE
from random_records import random_grounded_record
from test_constraint import first_refused, gold_tokens, wander

ANN, ROME = (0, 3), (9, 13)
REGIONS = tuple(Region((0.0, 0.0, (index + 1) / 20, 1.0)) for index in range(12))
RECORD = Record(
    "Ann left Rome", regions=REGIONS, entities=(Entity("person", ANN, regions=(0, 2, 11)), Entity("location", ROME))
)


def grounded(**options):
    return tasks.registry.build("mner", grounded=True, **options)


def automaton_of(family, task, record):
    (query,) = task.queries(record)
    return query, Constraint(FAMILIES[family](), task, [(record, query)], 64).automata[0]


def test_a_tokenizer_that_cannot_write_the_names_is_refused():
    with pytest.raises(UmieError, match="encodes O4 and O5, the names of places, identically"):
        automaton_of("end_of_word", grounded(), RECORD)


@pytest.mark.parametrize("family", [family for family in FAMILIES if family != "end_of_word"])
def test_the_annotated_answer_is_admitted_and_read_back(family):
    task = grounded()
    query, automaton = automaton_of(family, task, RECORD)
    assert query.answer == "[person = O1 O3 O12: Ann] [location: Rome]"
    tokens = gold_tokens(family, task, query)
    assert first_refused(automaton, tokens) is None
    assert automaton.read(tokens) == query.answer
    assert task.parse(query.answer, RECORD) == list(RECORD.entities)


@pytest.mark.parametrize("family", ["project", "unigram", "bytes"])
@pytest.mark.parametrize(
    "answer",
    [
        "[person = O3 O1: Ann]", "[person = O1 O1: Ann]", "[person = O13: Ann]", "[person = O0: Ann]", "[person = O1]",
        "[person = : Ann]", "[person = O1 Ann]", "[person = O1: Bob]",
    ],
)  # fmt: skip
def test_what_is_no_answer_is_refused(family, answer):
    """Places are ascending and distinct, exist, and come with a span."""
    _, automaton = automaton_of(family, grounded(), RECORD)
    tokenizer = FAMILIES[family]()
    assert first_refused(automaton, tokenizer(answer, add_special_tokens=False).input_ids) is not None


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("name", ["mner", "mre", "med", "meae"])
def test_any_admitted_answer_parses_and_names_only_places_that_exist(family, name):
    """Records have any combination of text and media; a medium that a record does not have is never named."""
    num_shown = 0
    for seed in range(15):
        rng = random.Random(f"grounded/{name}/{seed}")
        record, labels = random_grounded_record(rng.randint)
        task = tasks.registry.build(name, grounded=True, labels=labels)
        for query in task.queries(record):
            try:
                automaton = Constraint(FAMILIES[family](), task, [(record, query)], 64).automata[0]
            except UmieError as error:
                assert "identically" in str(error)
                break
            for limit in (12, 24, 40, 64):
                if limit < min(automaton.start.distances):
                    continue
                found = task.parse(automaton.read(wander(automaton, rng, limit)), record, query.target)
                assert found.dropped == 0
                shown = [places for item in found for places in places_in(item)]
                assert all(map(record.has, shown))
                num_shown += sum(map(any, shown))
    assert num_shown > (0 if family in LOWER_CASE or family == "end_of_word" else 5)


def places_in(item):
    """Return the places of an item and of its parts."""
    if isinstance(item, Relation):
        return [item.head_places, item.tail_places]
    return [item.places, *(argument.places for argument in getattr(item, "arguments", ()))]


def test_a_region_that_does_not_exist_drops_the_item():
    task = grounded()
    found = task.parse("[person = O13: Ann] [location = O1 x: Rome] [person = O2: Ann] [person: Ann]", RECORD)
    assert [(entity.text, entity.regions) for entity in found] == [("Ann", (1,)), ("Ann", ())]
    assert found.dropped == 2


def test_without_regions_or_the_option_answers_are_those_of_mner():
    plain = tasks.registry.build("mner")
    assert plain.queries(RECORD)[0].answer == "[person: Ann] [location: Rome]"
    assert plain.parse("[person = O1: Ann] [person: Ann]", RECORD) == [Entity("person", ANN, "Ann")]
    no_image = Record(RECORD.text, entities=(Entity("person", ANN),))
    assert grounded().queries(no_image)[0].answer == "[person: Ann]"
    assert grounded().answer_schema(no_image) == plain.answer_schema(no_image)


@pytest.mark.parametrize("style", ["paper", "released"])
def test_styles_that_cannot_write_regions_next_to_a_span(style):
    with pytest.raises(UmieError, match=f"the style '{style}' cannot write places next to a span: use structured"):
        grounded(style=style)
