"""Baselines without a model."""

from dataclasses import replace

import pytest

from umie.records import Argument, Entity, Event, Places, Record, Region, Relation, Segment
from umie.scoring.baselines import baseline_of, find_mentions, memorized, most_frequent

HALF, WHOLE = Region((0, 0, 0.5, 1)), Region((0, 0, 1, 1))


def test_the_most_frequent_label_and_ties():
    assert most_frequent(["b", "a", "b"]) == "b"
    assert most_frequent(["b", "a"]) == "a"
    assert most_frequent([]) is None


def test_the_longest_known_mentions_are_found_without_overlaps():
    known = memorized(
        [("New York", "loc"), ("New York Times", "org"), ("York", "per"), ("York", "per"), ("York", "loc")]
    )
    text = "The New  York Times of New York and York , NewYork"
    assert [(label, text[slice(*span)]) for label, span in find_mentions(text, known)] == [
        ("org", "New  York Times"),
        ("loc", "New York"),
        ("per", "York"),
    ]
    assert list(find_mentions("", known)) == list(find_mentions(text, {})) == []


def test_entities_are_memorized_from_train_and_nothing_without():
    gold = [Record("Rome and Ann", entities=(Entity("loc", (0, 4)), Entity("per", (9, 12))))]
    train = [
        Record("in Rome", entities=(Entity("loc", (3, 7)),)),
        Record("Rome", entities=(Entity("x", (0, 4)),) * 9, tasks=("mre",)),
    ]
    baseline = baseline_of("mner", "strict", gold, train)
    assert baseline.name == "mentions of train"
    assert baseline.answer(gold[0]).entities == (Entity("loc", (0, 4), "Rome"),)
    nothing = baseline_of("mner", "strict", gold, None)
    assert nothing.name == "nothing"
    assert nothing.answer(gold[0]).entities == ()


def test_the_most_frequent_relation_is_none_only_if_none_counts():
    record = Record(
        "a b c d",
        relations=(
            *(Relation(name, (0, 1), (2, 3)) for name in ("none", "peer")),
            *(Relation("None", (0, 1), (end, end + 1)) for end in (4, 6)),
        ),
    )
    strict = baseline_of("mre", "strict", [record], None)
    assert strict.name == "always 'peer', most frequent in gold"
    assert strict.answer(record).relations == tuple(Relation("peer", (0, 1), (end, end + 1)) for end in (2, 4, 6))
    assert baseline_of("mre", "with none", [record], None).name == "always 'none', most frequent in gold"
    train = [Record("a b", relations=(Relation("couple", (0, 1), (2, 3)),))]
    assert baseline_of("mre", "strict", [record], train).name == "always 'couple', most frequent in train"
    assert baseline_of("mre", "strict", [Record("a")], None).name == "nothing"


def test_events_without_and_with_training_records():
    gold = [Record("they met", image="1.jpg", events=(Event("meet", (5, 8)), Event("meet"), Event("die")))]
    plain = baseline_of("med", "strict", gold, None)
    assert plain.name == "always 'meet' without trigger, most frequent in gold"
    assert plain.answer(gold[0]).events == (Event("meet"),)
    train = [
        Record("he met", events=(Event("contact", (3, 6)),)),
        Record("", image="2.jpg", events=(Event("die"),) * 2),
    ]
    learned = baseline_of("med", "strict", gold, train)
    assert learned.answer(gold[0]).events == (Event("contact", (5, 8)),)
    assert learned.answer(Record("", image="3.jpg")).events == (Event("die"),)
    assert "without a text 'die'" in learned.name


def test_arguments_use_the_events_of_gold_and_say_so():
    event = Event("attack", (0, 1), (Argument("Target", regions=(0,)), Argument("Place", (2, 3))))
    gold = [Record("a b", image="1.jpg", regions=(HALF, WHOLE), events=(event,))]
    plain = baseline_of("meae", "strict", gold, None)
    assert plain.name == "gold events; every region 'Target', most frequent in gold"
    assert plain.answer(gold[0]).events == (
        Event("attack", (0, 1), (Argument("Target", regions=(0,)), Argument("Target", regions=(1,)))),
    )
    train = [Record("x b", events=(Event("attack", (0, 1), (Argument("Origin", (2, 3)),)), Event("die", (0, 1))))]
    learned = baseline_of("meae", "strict", gold, train)
    assert learned.name == "gold events; arguments of train"
    assert learned.answer(gold[0]).events == (Event("attack", (0, 1), (Argument("Origin", (2, 3)),)),)


SHORT, LONG = Segment((0, 1)), Segment((1, 4))
MEDIA = {"image": "i", "audio": "a", "regions": (HALF, WHOLE), "segments": (SHORT, LONG)}
LARGEST = ((1,), (), (1,))  # regions, tracks, segments


def test_grounded_baselines_use_the_largest_places():
    """Of a relation's end without a span, the query names the places, and they must not be those of the answer."""
    gold = Record(
        "a b",
        **MEDIA,
        relations=(Relation("peer", (0, 1), None, Places((0,)), Places((0,))),),
        events=(Event("die", (0, 1), (Argument("Agent", (2, 3), (0,)),), segments=(0,)),),
    )
    train = [
        replace(
            gold,
            entities=(Entity("x", (0, 1), regions=(0,)),),
            events=(*gold.events, Event("die", None, (Argument("Place", segments=(0,)),))),
        ),
        Record("", audio="a", segments=(SHORT,), entities=(Entity("dog", segments=(0,)),)),
    ]
    entities = baseline_of("mner", "grounded", [gold], train)
    assert entities.answer(gold).entities == (Entity("x", (0, 1), "a", *LARGEST),)
    assert entities.answer(Record("", **MEDIA)).entities == (Entity("dog", None, "", *LARGEST),)
    assert entities.name == "mentions of train; without a text 'dog', in the largest region and longest segment"
    assert baseline_of("mner", "strict", [gold], train).answer(gold).entities == (Entity("x", (0, 1), "a"),)
    relations = baseline_of("mre", "grounded", [gold], None)
    assert relations.answer(gold).relations == (Relation("peer", (0, 1), None, Places(*LARGEST), Places((0,))),)
    (event,) = baseline_of("med", "grounded", [gold], train).answer(gold).events
    assert event == Event("die", (0, 1), (), *LARGEST)
    (event,) = baseline_of("meae", "grounded", [gold], train).answer(gold).events
    heard = tuple(Argument("Place", segments=(index,)) for index in (0, 1))
    assert event.arguments == (Argument("Agent", (2, 3), *LARGEST), *heard)


@pytest.mark.parametrize(("task", "kind"), [("mner", "entities"), ("med", "events")])
def test_a_baseline_from_train_ignores_gold(task, kind):
    bare = Record("a b", image="1.jpg", regions=(HALF,))
    annotated = Record("a b", bare.image, bare.regions, entities=(Entity("z", (2, 3)),), events=(Event("z", (0, 1)),))
    train = [Record("a b", entities=(Entity("x", (0, 1)),), events=(Event("y", (2, 3)),))]
    baseline = baseline_of(task, "strict", [annotated], train)
    assert len(getattr(baseline.answer(bare), kind)) == 1
    assert getattr(baseline.answer(bare), kind) == getattr(baseline.answer(annotated), kind)
