"""Strict micro-F1, on cases computed by hand."""

import random

import pytest

from umie.errors import UmieError
from umie.records import Argument, Entity, Event, Record, Region, Relation
from umie.tasks import registry
from umie.tasks.metrics import Counts, count_matches, count_repeated, f1_of, f1_standard_error, micro_f1

# characters:  0         1         2         3
#              0123456789012345678901234567890123456789
TEXT = "Star Fox joins Team Sky in Rome . Rome !"
STAR_FOX, TEAM_SKY, ROME, ROME_AGAIN, JOINS = (0, 8), (15, 23), (27, 31), (34, 38), (9, 14)
FULL_BOX = Region((0.0, 0.0, 1.0, 1.0))


def score_outputs(name: str, record: Record, *outputs: str) -> tuple[Counts, int]:
    """Return the counts of one record whose queries were answered so, and how many pieces were dropped."""
    task = registry.build(name)
    queries = task.queries(record)
    assert len(queries) == len(outputs)
    found = [
        task.parse(output, record.text, focus=query.focus, num_regions=len(record.regions))
        for query, output in zip(queries, outputs, strict=True)
    ]
    (counts,) = task.counts([[item for items in found for item in items]], [record])
    return counts, sum(items.dropped for items in found)


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
    turned = Relation("member of", TEAM_SKY, STAR_FOX)
    assert registry.build("mre").counts([[turned]], [record]) == [Counts(0, 1, 1)]


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


def test_arguments_of_events_with_names_of_one_word_count() -> None:
    record = Record(
        TEXT,
        regions=(FULL_BOX,),
        events=(
            Event("meet", JOINS, (Argument("Entity", STAR_FOX), Argument("Entity", region=0))),
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
    argument = Argument("Entity", region=0)
    record = Record(TEXT, regions=(FULL_BOX,), events=(Event("meet", JOINS, (argument,)),))
    output = "[Entity = O1] [Entity = O2] [Entity = O0] [Entity = Rome] [Entity]"
    assert score_outputs("meae", record, output) == (Counts(1, 1, 1), 4)


def test_scores_are_micro_averages() -> None:
    task = registry.build("mner")
    ann, rome = Entity("person", STAR_FOX), Entity("location", ROME)
    records = [Record(TEXT, entities=(ann, rome)), Record(TEXT, entities=(ann,)), Record(TEXT)]
    wrong = Entity("location", STAR_FOX)
    assert task.score([[ann], [ann, wrong], [wrong]], records) == {
        "precision": 0.5,
        "recall": pytest.approx(2 / 3),
        "f1": pytest.approx(4 / 7),
        "true_positives": 2,
        "predicted": 4,
        "gold": 3,
    }


def test_nothing_predicted_and_nothing_annotated() -> None:
    task = registry.build("mner")
    zeros = {"precision": 0.0, "recall": 0.0, "f1": 0.0, "true_positives": 0, "predicted": 0, "gold": 0}
    assert task.score([], []) == zeros
    assert task.score([[]], [Record(TEXT)]) == zeros
    assert task.score([[]], [Record(TEXT, entities=(Entity("person", STAR_FOX),))]) == {**zeros, "gold": 1}
    assert task.score([[Entity("person", STAR_FOX)]], [Record(TEXT)]) == {**zeros, "predicted": 1}


@pytest.mark.parametrize("name", ["mner", "mre", "med", "meae"])
def test_a_list_of_predictions_for_each_record(name: str) -> None:
    with pytest.raises(UmieError, match="1 lists of predictions for 2 records"):
        registry.build(name).score([[]], [Record(TEXT), Record(TEXT)])


def test_counts_of_sets() -> None:
    assert count_matches({1, 2, 3}, {2, 3, 4, 5}) == Counts(true_positives=2, predicted=3, gold=4)
    assert count_matches(set(), set()) == Counts(0, 0, 0)


def test_counts_of_keys_that_repeat() -> None:
    assert count_repeated("aab", "abbc") == Counts(true_positives=2, predicted=3, gold=4)
    assert count_repeated("aaa", "a") == Counts(1, 3, 1)
    assert count_repeated("a", "aa") == Counts(1, 1, 2)
    assert count_repeated("", "") == Counts(0, 0, 0)


def test_f1_from_totals() -> None:
    assert f1_of(3, 5, 5) == pytest.approx(0.6)
    assert f1_of(0, 0, 0) == 0.0
    assert micro_f1([Counts(1, 2, 3), Counts(0, 1, 0), Counts(2, 2, 2)])["f1"] == pytest.approx(0.6)


def test_standard_error_by_hand() -> None:
    # F1 is 0.5, the residuals are 1 and -1, so the variance is 2 / 1 * (1 + 1) / 4**2
    assert f1_standard_error([Counts(1, 1, 1), Counts(0, 1, 1)]) == pytest.approx(0.5)
    assert f1_standard_error([Counts(1, 1, 1), Counts(2, 2, 2)]) == 0.0
    assert f1_standard_error([Counts(1, 2, 2)]) == 0.0
    assert f1_standard_error([Counts(0, 0, 0), Counts(0, 0, 0)]) == 0.0
    assert f1_standard_error([]) == 0.0


def test_standard_error_is_that_of_a_bootstrap() -> None:
    draw = random.Random(0)
    counts = []
    for _ in range(200):
        gold, predicted = draw.randint(0, 3), draw.randint(0, 3)
        counts.append(Counts(draw.randint(0, min(gold, predicted)), predicted, gold))
    samples = [micro_f1(draw.choices(counts, k=len(counts)))["f1"] for _ in range(2000)]
    mean = sum(samples) / len(samples)
    bootstrap = (sum((sample - mean) ** 2 for sample in samples) / (len(samples) - 1)) ** 0.5
    assert f1_standard_error(counts) == pytest.approx(bootstrap, rel=0.1)
