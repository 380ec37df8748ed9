"""Entities and relations, on cases counted by hand."""

import pytest

from umie.records import Entity, Record, Relation

# characters:  0         1         2         3
#              0123456789012345678901234567890123456789
TEXT = "Star Fox joins Team Sky in Rome . Rome !"
STAR, STAR_FOX, FOX, TEAM_SKY, ROME, ROME_AGAIN = (0, 4), (0, 8), (5, 8), (15, 23), (27, 31), (34, 38)


def entities(*items):
    return Record(TEXT, entities=tuple(Entity(*item) for item in items))


def relations(*items):
    return Record(TEXT, relations=tuple(Relation(*item) for item in items))


GOLD = entities(("person", STAR_FOX), ("location", ROME), ("location", ROME_AGAIN))


@pytest.mark.parametrize(
    ("predicted", "strict", "boundary", "kind", "string"),
    [
        ([("person", STAR_FOX), ("location", ROME), ("location", ROME_AGAIN)], *[(3, 3, 3)] * 4),
        ([], *[(0, 0, 3)] * 4),
        ([("location", ROME)], *[(1, 1, 3)] * 4),
        ([("location", ROME)] * 3, *[(1, 1, 3)] * 4),  # a repeated prediction counts once
        ([("person", STAR)], (0, 1, 3), (0, 1, 3), (1, 1, 3), (0, 1, 3)),  # part of a name
        ([("location", STAR_FOX)], (0, 1, 3), (1, 1, 3), (0, 1, 3), (0, 1, 3)),
        ([("person", STAR), ("person", FOX)], (0, 2, 3), (0, 2, 3), (1, 2, 3), (0, 2, 3)),  # two halves: one is right
        ([("person", STAR), ("person", STAR_FOX)], (1, 2, 3), (1, 2, 3), (1, 2, 3), (1, 2, 3)),  # nested
        ([("person", STAR_FOX), ("misc", STAR_FOX)], (1, 2, 3), (1, 1, 3), (1, 2, 3), (1, 2, 3)),
        ([("person", TEAM_SKY)], *[(0, 1, 3)] * 4),
    ],
    ids=["all", "none", "one mention", "thrice", "part", "type", "halves", "nested", "two types", "elsewhere"],
)
def test_entities(counts, predicted, strict, boundary, kind, string):
    record = entities(*predicted)
    assert counts("mner strict", record, GOLD) == strict
    assert counts("mner boundary", record, GOLD) == boundary
    assert counts("mner type", record, GOLD) == kind
    assert counts("mner string", record, GOLD) == string


def test_strings_do_not_distinguish_mentions(counts):
    """Rome occurs twice and only the first is annotated: as a string, the second is correct."""
    gold, predicted = entities(("location", ROME)), entities(("location", ROME_AGAIN))
    assert counts("mner strict", predicted, gold) == (0, 1, 1)
    assert counts("mner string", predicted, gold) == (1, 1, 1)


def test_nested_gold_is_matched(counts):
    gold = entities(("person", STAR_FOX), ("animal", FOX))
    assert counts("mner strict", gold, gold) == (2, 2, 2)
    assert counts("mner strict", entities(("animal", FOX)), gold) == (1, 1, 2)
    assert counts("mner boundary", entities(("animal", STAR_FOX)), gold) == (1, 1, 2)


def test_each_label_is_counted_by_itself(tally):
    predicted = entities(("person", STAR_FOX), ("person", ROME), ("location", ROME_AGAIN))
    assert tally("mner strict", predicted, GOLD) == {"person": (1, 2, 1), "location": (1, 1, 2)}
    assert tally("mner boundary", predicted, GOLD) == {"": (3, 3, 3)}


@pytest.mark.parametrize(
    ("predicted", "gold", "strict", "with_none"),
    [
        ("member of", "member of", (1, 1, 1), (1, 1, 1)),
        ("part of", "member of", (0, 1, 1), (0, 1, 1)),
        ("none", "none", (0, 0, 0), (1, 1, 1)),
        ("None", "none", (0, 0, 0), (1, 1, 1)),
        ("member of", "none", (0, 1, 0), (0, 1, 1)),
        ("none", "member of", (0, 0, 1), (0, 1, 1)),
    ],
)
def test_none_counts_only_in_the_measure_named_after_it(counts, predicted, gold, strict, with_none):
    sides = relations((predicted, STAR_FOX, TEAM_SKY)), relations((gold, STAR_FOX, TEAM_SKY))
    assert counts("mre strict", *sides) == counts("mre string", *sides) == strict
    assert counts("mre with none", *sides) == with_none


def test_heads_and_tails_of_several_words_and_their_direction(counts):
    gold = relations(("member of", STAR_FOX, TEAM_SKY))
    for name in ("mre strict", "mre with none", "mre string"):
        assert counts(name, gold, gold) == (1, 1, 1)
        assert counts(name, relations(("member of", TEAM_SKY, STAR_FOX)), gold) == (0, 1, 1)
        assert counts(name, relations(("member of", FOX, TEAM_SKY)), gold) == (0, 1, 1)
        assert counts(name, relations(*[("member of", STAR_FOX, TEAM_SKY)] * 2), gold) == (1, 1, 1)


def test_two_relations_of_one_pair_are_two(counts):
    gold = relations(("member of", STAR_FOX, TEAM_SKY), ("peer", STAR_FOX, TEAM_SKY))
    assert counts("mre strict", relations(("peer", STAR_FOX, TEAM_SKY)), gold) == (1, 1, 2)
