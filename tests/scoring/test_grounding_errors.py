"""Verdicts on groundings and mIoU: constructed errors, a plain reference, and properties of random records."""

import itertools
from collections import Counter
from dataclasses import replace
from random import Random

import pytest

from tests.tasks.random_records import random_grounded_record
from umie.records import Argument, Entity, Event, Places, Record, Region, Relation, Segment, Track
from umie.records.overlap import extent, place_iou
from umie.records.places import MEDIA
from umie.scoring import score_predictions, to_json
from umie.scoring.grounding_errors import ANNOTATED, PREDICTED, Diagnosis, Groundings, diagnose
from umie.scoring.groundings import KINDS, items_of
from umie.scoring.predictions import Prediction

TEXT = "Ann Lee met Bob and Cy"
ANN, ANN_LEE, BOB, CY = (0, 3), (0, 7), (12, 15), (20, 22)
LEFT, RIGHT, NEAR_LEFT, TOP = (0, 0, 0.4, 1), (0.6, 0, 1, 1), (0, 0, 0.3, 1), (0, 0, 1, 0.1)
GOLD = Record(
    TEXT,
    image="1.jpg",
    regions=[Region(box) for box in (LEFT, RIGHT, NEAR_LEFT, TOP)],
    entities=[Entity("person", ANN_LEE, regions=[0]), Entity("person", BOB, regions=[1]), Entity("person", CY)],
)
ALL = [("person", ANN_LEE, [0]), ("person", BOB, [1]), ("person", CY, [])]


def answered(*items, **changes):
    entities = [Entity(kind, span, regions=regions) for kind, span, regions in items]
    return replace(GOLD, entities=tuple(entities), **changes)


@pytest.mark.parametrize(
    ("items", "expected"),
    [
        (ALL, {"right": 2, "found": 2}),
        ([("person", ANN_LEE, [2]), *ALL[1:]], {"right": 2, "found": 2}),  # IoU 0.75
        ([*ALL, ALL[0]], {"right": 2, "found": 2, "repetition": 1}),  # the same item again
        ([*ALL, ("person", ANN, [3])], {"right": 2, "found": 2, "repetition": 1}),  # with other words of it
        ([*ALL, ("person", (16, 19), [1])], {"right": 2, "found": 2, "repetition": 1}),  # with the place of Bob
        ([("person", ANN_LEE, [0, 2]), *ALL[1:]], {"right": 2, "found": 2, "repetition": 1}),  # the place twice
        ([("person", ANN_LEE, [1]), *ALL[1:]], {"right": 1, "wrong match": 1, "found": 1, "miss-grounding": 1}),
        ([("person", ANN_LEE, [3]), *ALL[1:]], {"right": 1, "wrong place": 1, "found": 1, "miss-grounding": 1}),
        ([*ALL[:2], ("person", CY, [3])], {"right": 2, "found": 2, "over-grounding": 1}),
        ([("person", ANN_LEE, []), *ALL[1:]], {"right": 1, "found": 1, "miss-grounding": 1}),
        (ALL[1:], {"right": 1, "found": 1, "incomplete": 1}),
        ([("location", ANN_LEE, [0]), *ALL[1:]], {"right": 1, "found": 1, "propagation": 1, "incomplete": 1}),
    ],
)
def test_one_error_at_a_time(items, expected):
    assert diagnose("entities", answered(*items), GOLD).counts == Counter(expected)


def test_a_place_in_a_medium_that_the_record_does_not_have():
    found = replace(
        answered(*ALL), segments=[Segment((0, 1))], entities=[Entity("person", CY, segments=[0])], audio="1.wav"
    )
    assert diagnose("entities", found, GOLD).counts == Counter({"absent medium": 1, "incomplete": 2})


def test_a_swap_of_two_people_shows_only_in_the_overlap_by_item():
    swapped = answered(("person", ANN_LEE, [1]), ("person", BOB, [0]), ALL[2])
    lines = {line.name: line for line in Groundings([0], [diagnose("entities", swapped, GOLD)]).lines(100, 0)}
    assert (lines["I-Seg"].value, lines["I-Seg, by item"].value) == (1, 0)
    assert lines["wrong match"][2:] == (1, (1, 1), 2, 2)
    assert (lines["miss-grounding"].value, lines["incomplete"].value) == (1, 0)
    assert not {"A-Seg", "V-Trck"} & set(lines)


def test_each_end_of_a_relation_has_its_own_places():
    relation = Relation("peer", ANN_LEE, BOB, GOLD.entities[0].places, GOLD.entities[1].places)
    gold = replace(GOLD, entities=(), relations=(relation,))
    crossed = replace(relation, head_places=relation.tail_places, tail_places=relation.head_places)
    found = diagnose("relations", replace(gold, relations=(crossed,)), gold)
    assert [(one.verdict, one.part) for one in found.predicted] == [("wrong match", 0), ("wrong match", 1)]
    assert found.by_set["image"] == (2, 2)
    assert found.by_item["image"] == (0, 2)


def test_items_without_a_span_are_paired_by_their_places():
    gold = Record(
        "",
        video="1.mp4",
        tracks=[Track((0,), (box,)) for box in (LEFT, RIGHT)],
        events=[Event("meet", None, (Argument("Agent", tracks=[0]), Argument("Agent", tracks=[1])))],
    )
    event = gold.events[0]
    found = replace(gold, events=(replace(event, arguments=event.arguments[::-1]),))
    assert diagnose("arguments", found, gold).counts == Counter({"right": 2, "found": 2})


def test_a_wrong_item_without_a_span_is_a_repetition_only_in_the_same_place():
    gold = Record("", image="1.jpg", regions=GOLD.regions, entities=[Entity("person", regions=[0])])
    for other, verdict in ((1, "propagation"), (2, "repetition")):
        found = replace(gold, entities=(Entity("person", regions=[0]), Entity("person", regions=[other])))
        assert diagnose("entities", found, gold).counts == Counter({"right": 1, "found": 1, verdict: 1})


@pytest.mark.parametrize(
    ("head", "tail", "verdict"),
    [
        ((CY, 3), (ANN_LEE, 0), "propagation"),
        ((ANN_LEE, 0), (CY, 3), "propagation"),
        ((ANN, 0), (BOB, 1), "repetition"),
    ],
)
def test_a_relation_repeats_another_if_both_ends_do(head, tail, verdict):
    def relation(head, tail):
        return Relation("peer", head[0], tail[0], Places(regions=(head[1],)), Places(regions=(tail[1],)))

    gold = replace(GOLD, entities=(), relations=(relation((ANN_LEE, 0), (BOB, 1)),))
    found = replace(gold, relations=(*gold.relations, relation(head, tail)))
    assert diagnose("relations", found, gold).counts == Counter({"right": 2, "found": 2, verdict: 2})


def test_an_argument_of_another_event_is_no_repetition():
    gold = replace(GOLD, entities=(), events=(Event("meet", (8, 11), (Argument("Agent", ANN_LEE, regions=[0]),)),))
    attack = Event("attack", BOB, gold.events[0].arguments)
    again = Event("meet", (8, 11), (*gold.events[0].arguments, Argument("Agent", ANN, regions=[0])))
    for events, verdict in (((*gold.events, attack), "propagation"), ((again,), "repetition")):
        assert diagnose("arguments", replace(gold, events=events), gold).counts == Counter(
            {"right": 1, "found": 1, verdict: 1}
        )


def test_of_two_places_the_better_match_is_right_in_any_order():
    for regions in ([2, 4], [4, 2]):
        near = (*GOLD.regions, Region((0, 0, 0.39, 1)))
        found = replace(GOLD, regions=near, entities=(Entity("person", ANN_LEE, regions=sorted(regions)),))
        verdicts = {one.place: one.verdict for one in diagnose("entities", found, GOLD).predicted}
        assert verdicts == {2: "repetition", 4: "right"}


def test_many_places_of_many_items_are_compared_once():
    boxes = [(x / 60, y / 60, (x + 4) / 60, (y + 4) / 60) for x in range(0, 50, 5) for y in range(0, 25, 5)]
    text = "x" * 100
    entities = [Entity("a", (index, index + 1), regions=range(50)) for index in range(100)]
    record = Record(text, image="1.jpg", regions=[Region(box) for box in boxes], entities=entities)
    found = diagnose("entities", replace(record, entities=tuple(entities[50:])), record)
    assert found.counts == Counter({"right": 2500, "found": 2500, "incomplete": 2500})


def changed(record, rng):
    """Return a record with some of its answers changed, left out or repeated."""

    def some(items, change):
        kept = [item if rng.random() < 0.5 else change(item) for item in items if rng.random() < 0.8]
        return tuple(kept + rng.sample(kept, min(len(kept), rng.randint(0, 1))))

    def moved(item):
        fields = {}
        for name, count in (("regions", len(record.regions)), ("segments", len(record.segments))):
            if count and rng.random() < 0.7:
                fields[name] = tuple(sorted(rng.sample(range(count), rng.randint(0, min(2, count)))))
        if not getattr(item, "span", True) and not any({**vars(item), **fields}.get(name) for name in PLACE_FIELDS):
            return item
        return replace(item, **fields)

    entities = some(record.entities, moved)
    events = [replace(event, arguments=some(event.arguments, moved)) for event in some(record.events, moved)]
    relations = some(record.relations, lambda one: replace(one, head_places=one.tail_places) if one.head else one)
    return replace(record, entities=entities, relations=relations, events=tuple(events))


PLACE_FIELDS = ("regions", "tracks", "segments")


def plain_miou(places, others):
    """Return the largest sum of IoUs over all ways to pair the places."""
    few, many = sorted((places, others), key=len)
    orders = itertools.permutations(many, len(few))
    return max((sum(map(place_iou, few, order)) for order in orders), default=0)


def counted(record, kind):
    """Yield the items with the places that are answers: those of a pair without spans are named by the query."""
    for key, parts in items_of(kind)(record):
        is_named = kind == "relations" and key[1] is None
        yield key, tuple(Places() if is_named else part for part in parts)


def shown(record, kind, medium):
    places = record.places(medium)
    groups = [[part.of(medium) for part in parts] for _, parts in counted(record, kind)]
    return [[places[index] for own in parts for index in own] for parts in groups]


def distinct(places):
    return list({extent(place): place for place in places}.values())


@pytest.mark.parametrize("kind", KINDS)
def test_random_answers(kind):
    """Each grounding has one verdict, as many are right as found, and overlaps are those of the plain reference."""
    rng = Random(kind)
    num_checked = Counter()
    for _ in range(500):
        gold, _ = random_grounded_record(rng.randint)
        found = changed(gold, rng)
        result = diagnose(kind, found, gold)
        for side, record in ((result.predicted, found), (result.annotated, gold)):
            items = counted(record, kind) if side is result.predicted else set(counted(record, kind))
            names = [name for _, parts in items for part in parts for name in part.names]
            if side is result.predicted or len({extent(region) for region in gold.regions}) == len(gold.regions):
                assert len(side) == len(names)
        assert result.counts["right"] == result.counts["found"]
        assert {one.verdict for one in result.predicted} <= set(PREDICTED)
        assert {one.verdict for one in result.annotated} <= set(ANNOTATED)
        for medium in MEDIA:
            mine, theirs = (distinct(itertools.chain(*shown(record, kind, medium))) for record in (found, gold))
            if max(len(mine), len(theirs)) <= 6:
                total, size = result.by_set.get(medium, (0, 0))
                assert size == max(len(mine), len(theirs))
                assert total == pytest.approx(plain_miou(mine, theirs), abs=1e-9)
            if result.by_item:
                assert result.by_item[medium].total <= result.by_item[medium].size
        num_checked.update(one.verdict for one in (*result.predicted, *result.annotated))
        itself = diagnose(kind, gold, gold)
        assert set(itself.counts) <= {"right", "found", "repetition"}
    assert num_checked["right"] > 50
    assert num_checked["miss-grounding"] + num_checked["incomplete"] > 20


def test_places_that_a_query_names_are_no_groundings():
    """They are right whatever a model does."""
    record = Record(
        "", audio="1.wav", segments=(Segment((0, 1)), Segment((1, 2))),
        relations=(Relation("peer", None, None, Places(segments=(0,)), Places(segments=(1,))),),
    )  # fmt: skip
    assert diagnose("relations", record, record) == Diagnosis()
    spoken = replace(record, text="Ann Bob", relations=(replace(record.relations[0], head=(0, 3), tail=(4, 7)),))
    assert diagnose("relations", spoken, spoken).counts == {"right": 2, "found": 2}


def test_a_report_has_them_unless_no_place_was_asked_for():
    answers = [Prediction(answered(("person", ANN_LEE, [1]), *ALL[1:]))]
    report = score_predictions([GOLD], answers, tasks=["mner"])
    assert [line.name for line in report.grounding_lines["mner"]][:2] == ["I-Seg", "I-Seg, by item"]
    assert to_json(report)["groundings"]["mner"][0]["value"] == 0.5
    without = [Prediction(answered(*((kind, span, []) for kind, span, _ in ALL)))]
    assert not score_predictions([GOLD], without, tasks=["mner"], main={"mner": None}).groundings
    assert score_predictions([GOLD], without, tasks=["mner"], main={"mner": "grounded"}).groundings
