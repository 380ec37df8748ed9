"""Answers that call grounders, as in REAMO: what is written, admitted and read back."""

import random
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from umie import tasks
from umie.constrained import Constraint
from umie.errors import UmieError
from umie.records import MEDIA, Entity, Record, Region, Segment
from umie.records.model import moved_places
from umie.records.places import PLACES
from umie.tasks.calls import MODULES, Call, phrase_of

sys.path.insert(0, str(Path(__file__).resolve().parent))
from families import FAMILIES, LOWER_CASE
from random_records import asked_about, random_grounded_record
from test_constraint import first_refused, gold_tokens, wander

ANN = (0, 3)
RECORD = Record(
    "Ann left Rome",
    image="1.png",
    audio="1.wav",
    regions=(Region((0.0, 0.0, 0.4, 1.0), "left <woman>"), Region((0.5, 0.0, 1.0, 1.0))),
    segments=(Segment((0, 1), "voice"),),
    entities=(Entity("person", ANN, regions=(0, 1), segments=(0,)), Entity("location", (9, 13), regions=(1,))),
)
ANSWER = (
    "[person = <Module>ImageSegmentation</Module><Instruction>left woman</Instruction> "
    "<Module>AudioSegmentation</Module><Instruction>voice</Instruction>: Ann] "
    "[location = <Module>ImageSegmentation</Module><Instruction>Rome</Instruction>: Rome]"
)


def calling(name="mner", **options):
    return tasks.registry.build(name, grounded=True, style="reamo", **options)


def automaton_of(family, task, record):
    (query,) = task.queries(record)
    return query, Constraint(FAMILIES[family](), task, [(record, query)], 96).automata[0]


def test_calls_say_what_places_show():
    """The phrase is the label of the first place that has one, without the characters of the style, or the mention."""
    task = calling()
    (query,) = task.queries(RECORD)
    assert query.answer == ANSWER
    found = task.parse(query.answer, RECORD)
    assert [(item.text, item.regions, item.segments) for item in found] == [("Ann", (0,), (0,)), ("Rome", (), ())]
    assert found.dropped == 0


@pytest.mark.parametrize("family", FAMILIES)
def test_the_annotated_answer_is_admitted_and_read_back(family):
    task = calling()
    try:
        query, automaton = automaton_of(family, task, RECORD)
    except UmieError as error:
        assert "cannot write" in str(error)
        return
    tokens = gold_tokens(family, task, query)
    if FAMILIES[family]().unk_token_id in tokens:
        return
    assert first_refused(automaton, tokens) is None
    read, written = automaton.read(tokens), query.answer
    if family in LOWER_CASE:  # spans are copied from the text, phrases are not
        read, written = read.lower(), written.lower()
    assert task.style.parse(read) == task.style.parse(written)


@pytest.mark.parametrize("family", ["project", "unigram", "bytes", "wordpiece"])
@pytest.mark.parametrize("name", ["mner", "mre", "med", "meae"])
def test_any_admitted_answer_is_well_formed_and_calls_each_medium_of_the_record_once(family, name):
    num_calls = 0
    for seed in range(40 if name == "mre" else 15):
        rng = random.Random(f"calls/{name}/{seed}")
        record, labels = random_grounded_record(rng.randint)
        task = calling(name, labels=labels)
        for query in task.queries(record):
            try:
                automaton = Constraint(FAMILIES[family](), task, [(record, query)], 300).automata[0]
            except UmieError as error:
                assert "identically" in str(error)
                break
            for limit in (40, 150, 300):
                if limit < min(automaton.start.distances):
                    continue
                answer = automaton.read(wander(automaton, rng, limit))
                items, dropped = task.style.parse(answer)
                assert dropped == 0, answer
                for item in items:
                    calls = list(map(Call.named, item.places))
                    assert None not in calls, answer
                    media = [call.medium for call in calls]
                    assert set(media) <= set(record.media) and len(media) == len(set(media)), answer
                    num_calls += len(calls)
    assert num_calls > (1 if name == "mre" else 5)


@given(st.data())
@pytest.mark.parametrize("name", ["mner", "mre", "med", "meae"])
def test_calls_are_lossless_where_labels_are_distinct(name, data):
    """An item with one place in a medium has it again after writing and reading, if no other has its label."""
    record, labels = random_grounded_record(lambda low, high: data.draw(st.integers(low, high)))
    own = {
        PLACES[medium]: tuple(
            replace(place, label=f"{medium} {index}") for index, place in enumerate(record.places(medium))
        )
        for medium in MEDIA
    }
    first = moved_places(record, lambda span, places: type(places)(*(indices[:1] for indices in places)))
    record = replace(record, **own, **first)
    task = calling(name, labels=labels)
    for query in task.queries(record):
        answer = task.parse(query.answer, record, query.target)
        assert (set(answer), answer.dropped) == (asked_about(task, record, query), 0), query.answer


@pytest.mark.parametrize(
    "answer",
    [
        "[person = O1: Ann]", "[person = <Module>VideoTracking</Module><Instruction>x</Instruction>: Ann]",
        "[person = <Module>ImageSegmentation</Module><Instruction></Instruction>: Ann]",
        "[person = <Module>ImageSegmentation</Module>: Ann]", "[person = <Module>Ann</Module>: Ann]",
    ],
)  # fmt: skip
def test_what_is_no_call_drops_the_item(answer):
    found = calling().parse(f"{answer} [person: Ann]", RECORD)
    assert (list(found), found.dropped) == ([Entity("person", ANN, "Ann")], 1)


def test_calls_need_grounded_tasks_and_decoders_that_write():
    with pytest.raises(UmieError, match="the style 'reamo' calls for places, which are not asked for: set grounded"):
        tasks.registry.build("mner", style="reamo")
    from umie import compose

    task = calling()
    with pytest.raises(UmieError, match="a decoder that scores candidates writes none: use another style"):
        compose(decoder="span", tasks={"mner": {"grounded": True, "style": "reamo"}})
    _, processor = compose(decoder="span", tasks=["mner"])
    with pytest.raises(UmieError, match="a decoder that scores candidates writes none: use another style"):
        processor.encode_query(RECORD, task.queries(RECORD)[0], task)
    with pytest.raises(UmieError, match="no task has any: set grounded to True and style to 'reamo'"):
        compose(
            tasks={"mner": {"grounded": True}},
            grounders={"image": "drawn_image"},
            visual_embedding={"num_slot_embeddings": 5},
        )


@given(st.text())
def test_phrases(text):
    phrase = phrase_of(text)
    assert phrase_of(phrase) == phrase
    for medium in MODULES if phrase else ():
        assert Call.named(Call(medium, phrase).name) == Call(medium, phrase)
