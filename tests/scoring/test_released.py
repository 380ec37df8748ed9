"""The published scorer's behavior, case by case, and the items of the published data that it drops."""

import pytest

from umie.records import Argument, Entity, Event, Record, Region, Relation
from umie.scoring.released import released_score

# characters:  0         1         2         3
#              0123456789012345678901234567890123456789
TEXT = "Star Fox joins Team Sky in Rome . Rome !"
STAR_FOX, TEAM_SKY, ROME, ROME_AGAIN, JOINS = (0, 8), (15, 23), (27, 31), (34, 38), (9, 14)


def relations(*items):
    return Record(TEXT, relations=tuple(Relation(*item) for item in items))


def entities(*items):
    return Record(TEXT, entities=tuple(Entity(*item) for item in items))


def events(*items):
    return Record(TEXT, image="1.jpg", regions=(Region((0, 0, 1, 1)),), events=tuple(Event(*item) for item in items))


def score(task, predicted, gold):
    return released_score(task, [predicted], [gold])


def test_a_relation_whose_head_has_several_words_is_dropped_on_both_sides():
    gold = relations(("member of", STAR_FOX, TEAM_SKY))
    perfect = score("mre", gold, gold)
    assert (perfect.f1, perfect.perfect, perfect.perfect_found) == (0, 0, 0)
    assert perfect.dropped == perfect.dropped_predictions == {"head of several words": 1}
    assert perfect.dropped_share == 1


def test_a_tail_of_several_words_is_kept():
    gold = relations(("member of", ROME, TEAM_SKY))
    assert (score("mre", gold, gold).f1, score("mre", gold, gold).dropped) == (1, {})


def test_a_head_that_starts_with_a_relation_is_parsed_as_that_relation():
    """`[race car [part of: ...]]` is parsed as the relation 'race' of 'race' and 'car', whatever its type."""
    text = "race car by Ann"
    gold, wrong, other = (
        Record(text, relations=(Relation(name, (0, 8), (12, 15)), Relation("race", (12, 15), (0, 8))))
        for name in ("part of", "peer", "race")
    )
    assert score("mre", wrong, gold).f1 == score("mre", other, gold).f1 == 1
    assert score("mre", gold, gold).dropped == {}


def test_only_the_first_relation_of_a_head_is_read():
    gold = relations(("peer", ROME, TEAM_SKY), ("member of", ROME, STAR_FOX))
    assert score("mre", gold, gold).dropped == {"another relation of the same head": 1}


def test_none_is_a_positive():
    gold = relations(("none", ROME, TEAM_SKY))
    assert score("mre", gold, gold).f1 == 1
    assert score("mre", relations(("None", ROME, TEAM_SKY)), gold).f1 == 1


def test_a_repeated_mention_needs_one_prediction():
    gold = entities(("location", ROME), ("location", ROME_AGAIN))
    once = score("mner", entities(("location", ROME_AGAIN)), gold)
    assert (once.precision, once.recall, once.f1) == (1, 1, 1)
    thrice = score("mner", entities(*[("location", ROME)] * 3), gold)  # a string is right as often as gold has it
    assert (thrice.precision, thrice.recall) == (pytest.approx(2 / 3, abs=1e-4), 1)


def test_offsets_are_ignored():
    assert score("mner", entities(("location", ROME_AGAIN)), entities(("location", ROME))).f1 == 1


def test_predictions_with_labels_outside_the_schema_are_dropped():
    gold = entities(("location", ROME))
    predicted = entities(("location", ROME), ("planet", TEAM_SKY), ("moon", STAR_FOX))
    result = score("mner", predicted, gold)
    assert result.precision == 1
    assert result.dropped_predictions == {"label that gold does not have": 2}
    known = Record(TEXT, entities=gold.entities, labels={"mner": ("location", "planet")})
    assert score("mner", predicted, known).precision == 0.5


def test_numbers_are_rounded_as_in_the_published_code():
    gold = entities(("location", ROME), ("person", STAR_FOX), ("organization", TEAM_SKY))
    result = score("mner", entities(("location", ROME)), gold)
    assert (result.precision, result.recall) == (1, 0.3333)
    assert result.f1 == round(2 * 0.3333 / 1.3333, 4)


def test_a_mention_that_is_its_own_type_is_dropped_from_gold_and_false_if_predicted():
    gold = Record("they meet", events=(Event("meet", (5, 9)), Event("die", (0, 4))))
    result = score("med", gold, gold)
    assert result.dropped == {"type is the mention's own words": 1}
    assert result.dropped_predictions == {}
    assert (result.precision, result.recall) == (0.5, 1)
    assert result.perfect == result.f1 == pytest.approx(2 / 3, abs=1e-4)
    argued = Record("they meet", events=(Event("meet", (5, 9), (Argument("Entity", (0, 4)),)),))
    assert score("med", argued, argued).dropped == {}


def test_events_without_a_trigger_are_dropped():
    gold = events(("meet", None), ("meet", JOINS))
    assert score("med", gold, gold).dropped == {"event without a trigger": 1}


def test_arguments_of_one_word_types_and_visual_arguments_are_dropped():
    place, region = Argument("Place", ROME), Argument("Place", regions=(0,))
    gold = events(
        ("attack", JOINS, (place, region)), ("arrest jail", JOINS, (place, region)), ("phone write", None, (place,))
    )
    result = score("meae", gold, gold)
    assert result.dropped == {"event type of one word": 1, "visual argument": 2, "event without a trigger": 1}
    assert (result.gold, result.perfect, result.perfect_found) == (5, 1, 1)
    assert score("meae", events(("arrest jail", ROME, (Argument("Place", ROME_AGAIN),))), gold).f1 == 1
    assert score("meae", events(("start org", ROME, (place,))), gold).dropped_predictions == {
        "label that gold does not have": 1
    }


def test_gold_repeated_at_the_same_offsets_is_one():
    gold = entities(("location", ROME), ("location", ROME))
    assert score("mner", gold, gold).dropped == {"repeated at the same offsets": 1}


def test_empty_records_score_0():
    empty = Record(TEXT)
    for task in ("mner", "mre", "med", "meae"):
        result = score(task, empty, empty)
        assert (result.f1, result.perfect, result.dropped_share) == (0, 0, 0)


def test_the_items_of_the_published_mnre_that_it_drops(published):
    """42.9% of MNRE-2's test relations, counted from the texts and by the scorer."""
    records = published("mnre", "mnre_v2/test.txt")
    result = released_score("mre", records, records)
    several = sum(" " in record.surface(item.head) for record in records for item in record.relations)
    assert (result.gold, result.dropped) == (1614, {"head of several words": several})
    assert round(100 * result.dropped_share, 1) == 42.9
    assert (result.perfect, result.perfect_found) == (1, 1614 - several)
