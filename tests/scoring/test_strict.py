"""Strict micro-F1, on cases computed by hand."""

import random

import numpy as np
import pytest

from umie.errors import UmieError
from umie.records import Argument, Entity, Event, Record, Region, Relation
from umie.scoring import strict_score
from umie.scoring.counts import Counts, tally_repeated, tally_sets
from umie.tasks import registry

# characters:  0         1         2         3
#              0123456789012345678901234567890123456789
TEXT = "Star Fox joins Team Sky in Rome . Rome !"
STAR_FOX, TEAM_SKY, ROME, ROME_AGAIN, JOINS = (0, 8), (15, 23), (27, 31), (34, 38), (9, 14)
FULL_BOX = Region((0.0, 0.0, 1.0, 1.0))


def counts_of(name: str, predicted: Record, gold: Record) -> Counts:
    score = strict_score(name, [predicted], [gold])
    return Counts(score["true_positives"], score["predicted"], score["gold"])


def score_outputs(name: str, record: Record, *outputs: str) -> tuple[Counts, int]:
    """Return the counts of one record with these answers to its queries, and the number of dropped items."""
    task = registry.build(name)
    queries = task.queries(record)
    assert len(queries) == len(outputs)
    found = [task.parse(output, record, query.target) for query, output in zip(queries, outputs, strict=True)]
    predicted = task.with_items(record, [item for items in found for item in items])
    return counts_of(name, predicted, record), sum(items.dropped for items in found)


@pytest.mark.parametrize(
    ("output", "counts"),
    [
        ("[person: Star Fox] [location: Rome]", (2, 2, 3)),
        ("[person: Star Fox] [location: Rome] [location: Rome]2", (3, 3, 3)),
        ("[location: Rome] [location: Rome] [location: Rome]", (1, 1, 3)),
        ("[person: Star] [location: Rome]2", (1, 2, 3)),
        ("[location: Star Fox]", (0, 1, 3)),
        ("[Person: Star Fox]", (0, 1, 3)),
        ("", (0, 0, 3)),
    ],
    ids=["first mentions", "all", "one mention thrice", "part of a name", "wrong type", "case", "nothing"],
)
def test_entities_match_in_type_and_span(output: str, counts: tuple[int, int, int]) -> None:
    record = Record(
        TEXT, entities=(Entity("person", STAR_FOX), Entity("location", ROME), Entity("location", ROME_AGAIN))
    )
    assert score_outputs("mner", record, output) == (Counts(*counts), 0)


def test_a_repeated_gold_item_counts_once() -> None:
    record = Record(TEXT, entities=(Entity("person", STAR_FOX), Entity("person", STAR_FOX)))
    assert score_outputs("mner", record, "[person: Star Fox]") == (Counts(1, 1, 1), 0)


def test_spans_that_are_not_in_the_text_are_dropped_and_counted() -> None:
    record = Record(TEXT, entities=(Entity("person", STAR_FOX),))
    output = "[person: Star Fox] [person: Star Wolf] [person: Star Fox]2 [location: Rome]3"
    assert score_outputs("mner", record, output) == (Counts(1, 1, 1), 3)


def test_relations_with_heads_of_several_words_count() -> None:
    record = Record(TEXT, relations=(Relation("member of", STAR_FOX, TEAM_SKY),))
    assert score_outputs("mre", record, "[member of]") == (Counts(1, 1, 1), 0)
    assert score_outputs("mre", record, "[part of]") == (Counts(0, 1, 1), 0)


def test_relations_have_a_direction() -> None:
    record = Record(TEXT, relations=(Relation("member of", STAR_FOX, TEAM_SKY),))
    turned = Record(TEXT, relations=(Relation("member of", TEAM_SKY, STAR_FOX),))
    assert counts_of("mre", turned, record) == Counts(0, 1, 1)


@pytest.mark.parametrize(
    ("gold", "output", "counts"),
    [
        ("none", "[none]", (0, 0, 0)),
        ("none", "[member of]", (0, 1, 0)),
        ("member of", "[none]", (0, 0, 1)),
        ("member of", "[None]", (0, 0, 1)),
        ("none", "[none] [member of]", (0, 1, 0)),
        ("None", "[None]", (0, 0, 0)),
    ],
)
def test_none_is_never_a_positive(gold: str, output: str, counts: tuple[int, int, int]) -> None:
    record = Record(TEXT, relations=(Relation(gold, STAR_FOX, TEAM_SKY),))
    assert score_outputs("mre", record, output) == (Counts(*counts), 0)


def test_events_match_in_type_and_trigger() -> None:
    record = Record(TEXT, events=(Event("meet", JOINS), Event("attack")))
    assert score_outputs("med", record, "[attack] [meet: joins]") == (Counts(2, 2, 2), 0)
    assert score_outputs("med", record, "[attack: joins] [meet]") == (Counts(0, 2, 2), 0)
    assert score_outputs("med", record, "[meet = O1] [meet: leaves]") == (Counts(0, 0, 2), 2)


def test_arguments_of_events_with_one_word_names_count() -> None:
    record = Record(
        TEXT,
        regions=(FULL_BOX,),
        events=(
            Event("meet", JOINS, (Argument("Entity", STAR_FOX), Argument("Entity", regions=(0,)))),
            Event("arrest jail", ROME, (Argument("Place", ROME),)),
        ),
    )
    assert score_outputs("meae", record, "[Entity: Star Fox] [Entity = O1]", "[Place: Rome]") == (
        Counts(3, 3, 3),
        0,
    )
    assert score_outputs("meae", record, "[Agent: Star Fox]", "[Place: Rome]2") == (Counts(0, 2, 3), 0)
    assert score_outputs("meae", record, "[Place: Rome]", "[Entity: Star Fox]") == (Counts(0, 2, 3), 0)


def test_regions_that_do_not_exist_are_dropped_and_counted() -> None:
    argument = Argument("Entity", regions=(0,))
    record = Record(TEXT, regions=(FULL_BOX,), events=(Event("meet", JOINS, (argument,)),))
    output = "[Entity = O1] [Entity = O2] [Entity = O0] [Entity = Rome] [Entity]"
    assert score_outputs("meae", record, output) == (Counts(1, 1, 1), 4)


def test_a_region_that_overlaps_the_annotated_one_is_correct() -> None:
    """Visual arguments match by overlap, so two regions of the same object are equivalent."""
    regions = (Region((0.0, 0.0, 0.5, 1.0)), Region((0.0, 0.0, 0.55, 1.0)), Region((0.8, 0.8, 1.0, 1.0)))

    def record(region: int) -> Record:
        return Record(TEXT, regions=regions, events=(Event("meet", JOINS, (Argument("Entity", regions=(region,)),)),))

    assert counts_of("meae", record(1), record(0)) == Counts(1, 1, 1)
    assert counts_of("meae", record(2), record(0)) == Counts(0, 1, 1)


def entities(*items: Entity) -> Record:
    return Record(TEXT, entities=items)


def test_scores_are_micro_averages() -> None:
    ann, rome = Entity("person", STAR_FOX), Entity("location", ROME)
    wrong = Entity("location", STAR_FOX)
    score = strict_score(
        "mner",
        [entities(ann), entities(ann, wrong), entities(wrong)],
        [entities(ann, rome), entities(ann), entities()],
    )
    low, high = score.pop("interval")
    assert 0 <= low <= score["f1"] <= high <= 1
    assert score == {
        "precision": 0.5,
        "recall": pytest.approx(2 / 3),
        "f1": pytest.approx(4 / 7),
        "true_positives": 2,
        "predicted": 4,
        "gold": 3,
    }


def test_nothing_predicted_and_nothing_annotated() -> None:
    zeros = {"precision": 0.0, "recall": 0.0, "f1": 0.0, "true_positives": 0, "predicted": 0, "gold": 0}
    zeros["interval"] = [0.0, 0.0]
    star_fox = Entity("person", STAR_FOX)
    assert strict_score("mner", [], []) == zeros
    assert strict_score("mner", [entities()], [entities()]) == zeros
    assert strict_score("mner", [entities()], [entities(star_fox)]) == {**zeros, "gold": 1}
    assert strict_score("mner", [entities(star_fox)], [entities()]) == {**zeros, "predicted": 1}


@pytest.mark.parametrize("name", ["mner", "mre", "med", "meae"])
def test_one_prediction_for_each_record(name: str) -> None:
    with pytest.raises(UmieError, match="1 predictions for 2 records"):
        strict_score(name, [Record(TEXT)], [Record(TEXT), Record(TEXT)])


def test_counts_of_sets() -> None:
    first, second = [("a", number) for number in (1, 2, 3)], [("a", number) for number in (2, 3, 4, 5)]
    assert tally_sets(first, second) == {"a": Counts(true_positives=2, predicted=3, gold=4)}
    assert tally_sets([], []) == {}


def test_counts_of_keys_that_repeat() -> None:
    def counts(predicted: str, gold: str) -> Counts:
        return tally_repeated(*([("", character) for character in side] for side in (predicted, gold))).get(
            "", Counts(0, 0, 0)
        )

    assert counts("aab", "abbc") == Counts(true_positives=2, predicted=3, gold=4)
    assert counts("aaa", "a") == Counts(1, 3, 1)
    assert counts("a", "aa") == Counts(1, 1, 2)
    assert counts("", "") == Counts(0, 0, 0)


def test_the_interval_is_that_of_resampling_the_records() -> None:
    draw = random.Random(0)
    spans = [(0, 4), (5, 8), (9, 14)]
    pairs = []
    for _ in range(200):
        sides = [draw.sample(spans, draw.randint(0, 3)) for _ in range(2)]
        pairs.append([entities(*(Entity("person", span) for span in side)) for side in sides])
    low, high = strict_score("mner", *zip(*pairs, strict=True))["interval"]
    samples = [
        strict_score("mner", *zip(*draw.choices(pairs, k=200), strict=True), resamples=1)["f1"] for _ in range(800)
    ]
    assert (low, high) == pytest.approx(tuple(np.percentile(samples, [2.5, 97.5])), abs=0.02)
