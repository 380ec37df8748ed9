"""Measures of items with places in all media, on cases counted by hand, and items without a span in every measure."""

from dataclasses import replace
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.tasks.random_records import random_grounded_record
from umie.records import Argument, Entity, Event, Places, Record, Region, Relation, Segment, Track
from umie.scoring import MEASURES, Prediction, Sheet, score_predictions, strict_score
from umie.scoring.measures import measures_of

ANN, ROME = (0, 3), (9, 13)
BARK, LATE, NEAR = Segment((0, 1)), Segment((5, 6)), Segment((0, 1.5))  # the last: IoU 2/3 with the first
MAN, CAR = Track((0, 1), ((0, 0, 0.4, 1), (0, 0, 0.4, 1))), Track((0, 1), ((0.6, 0, 1, 1), (0.6, 0, 1, 1)))
LEFT, RIGHT = Region((0, 0, 0.4, 1)), Region((0.6, 0, 1, 1))
MEDIA = {
    "image": "i", "audio": "a", "video": "v",
    "regions": (LEFT, RIGHT), "segments": (BARK, LATE, NEAR), "tracks": (MAN, CAR),
}  # fmt: skip


def record(text="Ann left Rome", **items):
    return Record(text, **MEDIA, **items)


def entities(*items):
    """Return a record of entities, given as type, span, regions, tracks and segments."""
    return record(entities=tuple(Entity(kind, span, "", *places) for kind, span, *places in items))


GOLD = entities(("person", ANN, (0,), (0,), (0,)), ("location", ROME, (), (), ()))


@pytest.mark.parametrize(
    ("predicted", "expected"),
    [
        ([("person", ANN, (0,), (0,), (0,)), ("location", ROME, (), (), ())], (2, 2, 2)),
        ([("person", ANN, (0,), (0,), (2,))], (1, 1, 2)),  # a segment of IoU 2/3
        ([("person", ANN, (0,), (0,), (1,))], (0, 1, 2)),  # another segment
        ([("person", ANN, (0,), (0,), ())], (0, 1, 2)),  # no segment
        ([("person", ANN, (0,), (), (0, 1))], (0, 1, 2)),  # as many places, of other media
        ([("person", ANN, (0,), (1,), (0,))], (0, 1, 2)),  # another track
        ([("location", ROME, (), (), (0,))], (0, 1, 2)),  # nothing to hear
    ],
)
def test_places_of_all_media_must_match(counts, predicted, expected):
    assert counts("mner grounded", entities(*predicted), GOLD) == expected


def test_entities_without_a_span_are_told_apart_by_their_places(counts):
    gold = entities(*[("person", None, (index,), (), ()) for index in (0, 1)], ("dog", None, (), (), (0,)))
    one = entities(("person", None, (0,), (), ()), ("dog", None, (), (), (1,)))
    assert counts("mner grounded", gold, gold) == (3, 3, 3)
    assert counts("mner grounded", one, gold) == (1, 2, 3)
    assert counts("mner strict", gold, gold) == (2, 2, 2)  # one of each type
    assert counts("mner strict", one, gold) == (2, 2, 2)
    for omitted in ("boundary", "type", "string"):
        assert counts(f"mner {omitted}", one, gold) == (0, 0, 0), omitted


def test_the_largest_matching_of_items_without_a_span_is_found(counts):
    """The first prediction fits both, the second only one of them."""
    media = {"audio": "a", "segments": (Segment((0, 4)), Segment((0, 2)), Segment((0, 1)))}
    gold = Record("", **media, entities=tuple(Entity("dog", segments=(index,)) for index in (0, 1)))
    found = Record("", **media, entities=tuple(Entity("dog", segments=(index,)) for index in (1, 2)))
    assert counts("mner grounded", found, gold) == (2, 2, 2)


def relations(*items):
    """Return a record of relations, given as type, head, tail, and regions of both."""
    return record(
        relations=tuple(
            Relation(kind, head, tail, Places(tuple(seen)), Places(tuple(also)))
            for kind, head, tail, seen, also in items
        )
    )


@pytest.mark.parametrize(
    ("predicted", "strict", "grounded"),
    [
        (("peer", ANN, ROME, [0], [1]), 1, 1),
        (("peer", ANN, ROME, [1], [0]), 1, 0),  # exchanged
        (("peer", ANN, ROME, [0], []), 1, 0),
        (("siblings", ANN, ROME, [0], [1]), 0, 0),
        (("none", ANN, ROME, [0], [1]), 0, 0),
    ],
)
def test_head_and_tail_have_places_of_their_own(counts, predicted, strict, grounded):
    gold = relations(("peer", ANN, ROME, [0], [1]), ("None", ROME, ANN, [1], [0]))
    number = int(predicted[0] != "none")
    assert counts("mre strict", relations(predicted), gold) == (strict, number, 1)
    assert counts("mre grounded", relations(predicted), gold) == (grounded, number, 1)


def test_relations_without_spans_count(counts):
    gold = relations(("peer", None, None, [0], [1]), ("peer", None, None, [1], [0]), ("peer", ANN, None, [], [0]))
    assert counts("mre grounded", gold, gold) == (3, 3, 3)
    assert counts("mre grounded", relations(("peer", None, None, [0], [1])), gold) == (1, 1, 3)
    assert counts("mre strict", gold, gold) == (2, 2, 2)  # the first two have equal offsets
    assert counts("mre string", gold, gold) == (0, 0, 0)


def test_the_trigger_has_places(counts):
    gold = record(events=(Event("die", (4, 8), segments=(0,)), Event("meet", regions=(0,)), Event("meet", tracks=(1,))))
    found = record(events=(Event("die", (4, 8), segments=(2,)), Event("meet", regions=(0,)), Event("meet")))
    assert counts("med grounded", found, gold) == (2, 3, 3)
    assert counts("med strict", found, gold) == (2, 2, 2)
    assert counts("med visual", found, gold) == (1, 1, 1)


def arguments(*items):
    return record(events=(Event("meet", (4, 8), tuple(Argument(*item) for item in items), segments=(0,)),))


def test_arguments_with_a_span_and_places(counts):
    """They are textual; only ``grounded`` and the visual measures compare their places."""
    gold = arguments(("Agent", ANN, (0,), (0,)), ("Place", ROME))
    plain = arguments(("Agent", ANN), ("Place", ROME))
    for measure in ("strict", "by type", "textual", "textual by type"):
        assert counts(f"meae {measure}", plain, gold) == counts(f"meae {measure}", gold, plain) == (2, 2, 2)
    assert counts("meae grounded", plain, gold) == (1, 2, 2)
    assert counts("meae visual instance", plain, gold) == (0, 0, 1)
    assert counts("meae string", plain, gold) == (2, 2, 2)
    elsewhere = replace(gold, events=(replace(gold.events[0], segments=()),))
    assert counts("meae grounded", elsewhere, gold) == (2, 2, 2)  # places of the event are MED's


def test_arguments_without_a_span(counts):
    """Strict counts their places one by one, grounded counts arguments."""
    gold = arguments(("Agent", None, (0, 1), (), (0,)), ("Agent", None, (), (1,)))
    half = arguments(("Agent", None, (1,), (), (2,)), ("Agent", None, (), (1,)))
    assert counts("meae strict", half, gold) == (3, 3, 4)
    assert counts("meae by type", half, gold) == (3, 3, 4)
    assert counts("meae grounded", half, gold) == (1, 2, 2)
    assert counts("meae visual instance", half, gold) == (1, 1, 2)
    assert counts("meae visual union", half, gold) == (0, 1, 1)
    assert counts("meae textual", half, gold) == counts("meae string", half, gold) == (0, 0, 0)


@pytest.mark.parametrize(
    ("task", "item", "plain"),
    [
        ("mner", {"entities": (Entity("dog", ANN, segments=(0,)),)}, {"entities": (Entity("dog", ANN),)}),
        (
            "mre",
            {"relations": (Relation("peer", ANN, ROME, Places(tracks=(0,))),)},
            {"relations": (Relation("peer", ANN, ROME),)},
        ),
        ("med", {"events": (Event("die", ANN, tracks=(0,)),)}, {"events": (Event("die", ANN),)}),
        (
            "meae",
            {"events": (Event("die", ANN, (Argument("Agent", ROME, (0,)),)),)},
            {"events": (Event("die", ANN, (Argument("Agent", None, (0,)),)),)},  # UMIE's arguments, in strict
        ),
    ],
)
def test_it_is_reported_if_gold_has_places(task, item, plain):
    def measures(predicted, gold, **options):
        found = score_predictions([gold], [Prediction(predicted)], tasks=[task], resamples=10, **options)
        return {line.measure: line.score.f1 for line in found.lines if line.modality == "all"}

    grounded, bare = record(**item), record(**plain)
    assert measures(grounded, grounded)["grounded"] == 1
    assert measures(bare, grounded)["grounded"] == 0
    assert "grounded" not in measures(grounded, bare)
    assert "grounded" not in measures(bare, grounded, main={task: None})  # it was not asked for places
    assert "grounded" in measures(grounded, grounded, main={task: None})
    assert strict_score(task, [grounded], [grounded])["f1"] == 1
    assert {"GMNER", "EEG"}.isdisjoint(measures(grounded, grounded))  # there are no regions of entities


def partly_unwritten(found, random):
    """Return a record without some of the spans of items that have places."""

    def span(own, places):
        return None if places and random.random() < 0.4 else own

    return replace(
        found,
        entities=tuple(replace(item, span=None, text="") if not span(item.span, item.places) else item
                       for item in found.entities),
        relations=tuple(
            replace(item, head=span(item.head, item.head_places), tail=span(item.tail, item.tail_places))
            for item in found.relations
        ),
        events=tuple(
            replace(
                item, trigger=span(item.trigger, True),
                arguments=tuple(replace(one, span=span(one.span, one.places)) for one in item.arguments),
            )
            for item in found.events
        ),
    )  # fmt: skip


def drawn(seed):
    random = Random(seed)
    return partly_unwritten(random_grounded_record(random.randint)[0], random)


@given(st.lists(st.integers(0, 2**32), min_size=1, max_size=4))
def test_any_mix_of_spans_and_places_is_perfect_against_itself(seeds):
    gold = list(map(drawn, seeds))
    for measure in MEASURES:
        perfect = Sheet.of([measure.count(one, one) for one in gold])
        assert perfect.is_empty or perfect.score()[:3] == pytest.approx((1, 1, 1)), measure


@settings(max_examples=8)
@given(st.lists(st.integers(0, 2**32), min_size=2, max_size=6))
def test_any_mix_can_be_evaluated(seeds):
    """With baselines, splits and the published scorer; the main measure of gold against itself is 1."""
    tasks = ("mner", "mre", "med", "meae")
    gold = [replace(drawn(seed), tasks=tasks) for seed in seeds]
    others = [replace(own, text=own.text) for own in map(drawn, seeds[::-1])]
    same = [Prediction(one) for one in gold]
    for train in (None, others):
        report = score_predictions(gold, same, other=same, train=train, resamples=10)
        for line in report.lines:
            assert line.score.f1 == (1 if line.score.gold else 0), line
    score_predictions(gold, [Prediction(one) for one in others], train=others, resamples=10)


def test_every_kind_has_the_measure():
    for task in ("mner", "mre", "med", "meae"):
        assert "grounded" in {measure.name for measure in measures_of(task)}


def test_measures_of_images_leave_out_records_with_only_sounds_or_videos():
    seen = Record("Ann", image="i", regions=(LEFT,), entities=(Entity("person", ANN, regions=(0,)),))
    heard = Record("Ann", audio="a", segments=(BARK,), entities=(Entity("person", ANN, segments=(0,)),))
    nothing = Prediction(Record("Ann", image="i")), Prediction(Record("Ann", audio="a"))
    lines = score_predictions([seen, heard], nothing, resamples=100).lines
    gold = {(line.measure, line.modality): line.score.gold for line in lines if line.average == "micro"}
    assert {gold[name, "all"] for name in ("strict", "grounded")} == {2}
    assert {gold[name, "all"] for name in ("GMNER", "EEG")} == {1}
    assert {name for name, modality in gold if modality == "T+A"}.isdisjoint({"GMNER", "EEG"})
    events = [
        replace(one, entities=(), events=(Event("Attack", None, **places),))
        for one, places in ((seen, {"regions": (0,)}), (heard, {"segments": (0,)}))
    ]
    lines = score_predictions(events, nothing, resamples=100).lines
    assert [line.score.gold for line in lines if (line.measure, line.modality) == ("visual", "all")] == [1, 1]
