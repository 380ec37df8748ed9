"""Proposed places in place of annotated ones: what is moved, what is left out, and what is kept as gold."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from umie.errors import UmieError
from umie.records import (
    Argument,
    Entity,
    Event,
    Places,
    Record,
    Region,
    Relation,
    Segment,
    record_from_json,
    record_to_json,
)
from umie.records.jsonl import errors_of_line
from umie.records.model import place_references
from umie.records.overlap import nearest_places

ANNOTATED = Record(
    "Ann left",
    id="1",
    image="a.png",
    audio="a.wav",
    regions=(Region((0, 0, 0.1, 0.1)),),
    segments=(Segment((0, 1)), Segment((2, 3)), Segment((4, 5))),
    entities=(Entity("person", (0, 3), regions=(0,), segments=(0, 2)), Entity("person", segments=(1,))),
    relations=(
        Relation("peer", (0, 3), None, tail_places=Places(segments=(0,))),
        Relation("peer", None, None, Places(segments=(0,)), Places(segments=(1,))),
    ),
    events=(Event("leave", None, (Argument("Agent", segments=(1,)), Argument("Agent", segments=(2,))), segments=(1,)),),
    tasks=("mner", "mre"),
    labels={"mner": ("person",)},
)
PROPOSED = (Segment((4, 5.5)), Segment((0, 0.9)))


def test_the_annotation_refers_to_the_new_places_and_loses_what_they_do_not_show():
    moved = ANNOTATED.regrounded("audio", PROPOSED, {0: 1, 2: 0})
    assert moved.segments == PROPOSED
    assert moved.entities == (Entity("person", (0, 3), "Ann", regions=(0,), segments=(0, 1)),)
    assert moved.relations == (Relation("peer", (0, 3), None, tail_places=Places(segments=(1,))),)
    assert moved.events == (Event("leave", None, (Argument("Agent", segments=(0,)),)),)
    assert moved.regions == ANNOTATED.regions
    assert ANNOTATED.regrounded("audio", ANNOTATED.segments, {0: 0, 1: 1, 2: 2}) == ANNOTATED
    assert ANNOTATED.regrounded("audio", ANNOTATED.segments, {}) == ANNOTATED.ungrounded("audio")


@given(st.permutations(range(3)))
def test_an_order_of_places_changes_nothing_else(order):
    moved = {old: new for new, old in enumerate(order)}
    shuffled = ANNOTATED.regrounded("audio", (ANNOTATED.segments[index] for index in order), moved)

    def shown(record):
        items = place_references(record.entities, record.relations, record.events)
        return [{record.segments[index] for index in places.segments} for _, places in items]

    assert shown(shuffled) == shown(ANNOTATED)


def test_gold_survives_the_line_with_what_the_record_says():
    record = replace(ANNOTATED.regrounded("audio", PROPOSED, {0: 1, 2: 0}), gold=ANNOTATED)
    read = record_from_json(record_to_json(record))
    assert (read, read.annotated, read.gold.gold) == (record, ANNOTATED, None)
    assert ANNOTATED.annotated is ANNOTATED
    bare = Record("a", gold=Record("a"))
    assert record_from_json(record_to_json(bare)) == bare


def test_gold_has_the_image_folder_of_its_record():
    record = record_from_json('{"text": "a", "image": "b.png", "gold": {}}', "photos")
    assert (record.image_folder, record.gold.image_folder) == ("photos", "photos")


def test_a_hidden_medium_is_hidden_in_gold():
    record = replace(ANNOTATED.regrounded("audio", PROPOSED, {0: 1, 2: 0}), gold=ANNOTATED)
    assert record.ungrounded("audio").gold == ANNOTATED.ungrounded("audio")


@pytest.mark.parametrize(
    ("gold", "message"),
    [
        ("[]", "gold: gold is []: expected a JSON object"),
        ('{"texts": []}', "gold: Unknown gold key 'texts'"),
        ('{"text": "b"}', "gold: Unknown gold key 'text'"),
        ('{"segments": [{"interval": [2, 1]}]}', "gold: interval [2, 1] must be two times"),
        (
            '{"entities": [{"type": "x", "segments": [1]}]}',
            "gold: entity 'x' refers to segment 1, but the record has 0",
        ),
        ('{"entities": [{"type": "x", "span": [0, 9]}]}', "gold: span [0, 9] is not inside the text"),
        ('{"gold": {}}', "gold: Unknown gold key 'gold'"),
    ],
)
def test_bad_gold(gold, message):
    line = f'{{"text": "a", "audio": "a.wav", "gold": {gold}}}'
    with pytest.raises(UmieError) as caught:
        record_from_json(line)
    assert str(caught.value).startswith(message)
    assert [str(error).startswith(message) for error in errors_of_line(line)] == [True]


def test_gold_of_another_text():
    with pytest.raises(UmieError, match="gold has another text"):
        Record("a", gold=Record("b"))
    with pytest.raises(UmieError, match="a gold of its own"):
        Record("a", gold=Record("a", gold=Record("a")))


INTERVALS = st.integers(0, 30).flatmap(lambda start: st.tuples(st.just(start), st.integers(start + 1, 32)))
SEGMENTS = st.lists(INTERVALS.map(Segment), max_size=5)


@given(SEGMENTS, SEGMENTS)
def test_the_nearest_place_has_half_of_both(places, others):
    nearest = nearest_places(places, others)
    for index, place in enumerate(places):
        (start, end), ious = place.interval, []
        for first, last in (other.interval for other in others):
            shared = max(0, min(end, last) - max(start, first))
            ious.append(shared / (end - start + last - first - shared))
        if ious and max(ious) >= 0.5:
            assert ious[nearest[index]] == max(ious)
        else:
            assert index not in nearest
