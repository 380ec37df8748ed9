"""Entities with the regions that show them, on cases counted by hand."""

import pytest

from umie.records import Argument, Entity, Event, Mask, Record, Region
from umie.scoring import groundings, score_predictions
from umie.scoring.baselines import baseline_of
from umie.scoring.measures import measures_of
from umie.scoring.predictions import Prediction

ANN, ROME = (0, 3), (9, 13)
LEFT, RIGHT, WIDE, NEAR_LEFT = (
    (0, 0, 0.4, 1),
    (0.6, 0, 1, 1),
    (0, 0, 1, 1),
    (0, 0, 0.5, 1),
)  # the last: IoU 0.8 with LEFT


def record(*entities):
    """Return a record of entities, given as type, span and boxes."""
    boxes = list(dict.fromkeys(box for _, _, shown in entities for box in shown))
    return Record(
        "Ann left Rome",
        image="x",
        regions=tuple(map(Region, boxes)),
        entities=tuple(Entity(kind, span, regions=tuple(map(boxes.index, shown))) for kind, span, shown in entities),
    )


GOLD = record(("person", ANN, [LEFT, RIGHT]), ("location", ROME, []))


@pytest.mark.parametrize(
    ("predicted", "grounded", "gmner", "eeg"),
    [
        ([("person", ANN, [RIGHT, NEAR_LEFT]), ("location", ROME, [])], *[(2, 2, 2)] * 3),
        ([("person", ANN, [LEFT])], (0, 1, 2), (1, 1, 2), (1, 1, 2)),  # one of two boxes
        ([("location", ANN, [LEFT])], (0, 1, 2), (0, 1, 2), (1, 1, 2)),  # another type
        ([("person", ANN, [])], *[(0, 1, 2)] * 3),  # not grounded
        ([("person", ANN, [WIDE])], *[(0, 1, 2)] * 3),  # IoU 0.4 with both
        ([("person", ANN, [LEFT, WIDE])], *[(0, 1, 2)] * 3),  # a wrong one beside a right one
        ([("person", ANN, [LEFT, NEAR_LEFT])], (0, 1, 2), (1, 1, 2), (1, 1, 2)),  # one box twice
        ([("location", ROME, [LEFT])], *[(0, 1, 2)] * 3),  # nothing to see
        ([("person", ANN, [LEFT, RIGHT])] * 2, *[(1, 1, 2)] * 3),  # a repeated prediction counts once
        ([("person", ANN, [LEFT, RIGHT]), ("person", ANN, [])], *[(1, 2, 2)] * 3),  # both, to be sure
        ([], *[(0, 0, 2)] * 3),
    ],
)
def test_groundings(predicted, grounded, gmner, eeg):
    count = {measure.name: measure.count for measure in measures_of("mner")}
    for name, expected in (("grounded", grounded), ("GMNER", gmner), ("EEG", eeg)):
        tally = count[name](record(*predicted), GOLD)
        assert tuple(map(sum, zip(*tally.values(), strict=True))) == expected, name


@pytest.mark.parametrize(
    ("predicted", "expected"),
    [
        ([("person", ANN, [RIGHT, NEAR_LEFT]), ("location", ROME, [])], (1, 1, 1)),  # Rome has no places
        ([("person", ANN, [LEFT]), ("location", ROME, [LEFT])], (0, 1, 1)),
        ([("location", ANN, [LEFT, RIGHT])], (0, 0, 0)),  # not found
        ([("person", ANN, []), ("person", ROME, [LEFT])], (0, 1, 1)),  # an invented mention
        ([], (0, 0, 0)),
    ],
)
def test_pointing_is_about_mentions_that_are_found(predicted, expected):
    tally = groundings.entities_pointing(record(*predicted), GOLD)
    assert tuple(map(sum, zip(*tally.values(), strict=True))) == (expected if any(expected) else ())


def test_the_baseline_of_pointing_knows_the_mentions_and_what_a_detector_saw():
    gold = [
        Record("a red car stops", image="x", regions=(Region(WIDE), Region(LEFT, label)), entities=[car])
        for label in ("race car", "cart", None)
        for car in [Entity("thing", (0, 9), regions=(1,))]
    ]
    baseline = baseline_of("mner", "pointing", gold, None)
    assert [baseline.answer(one).entities[0].regions for one in gold] == [(1,), (0,), (0,)]
    assert (
        baseline.name
        == "gold mentions, in the largest region, or in the one labeled like its last word; at random 0.500"
    )


def test_they_are_reported_if_gold_is_grounded():
    def measures(predicted, gold, **options):
        found = score_predictions([gold], [Prediction(predicted)], tasks=["mner"], resamples=10, **options)
        return {line.measure for line in found.lines}

    plain = record(("person", ANN, []))
    named = {"grounded", "GMNER", "EEG", "pointing"}
    assert named <= measures(GOLD, GOLD)
    assert named <= measures(plain, GOLD)
    assert not named & (measures(plain, GOLD, main={"mner": None}) | measures(GOLD, plain))


def test_equal_boxes_in_different_images_do_not_match():
    def found(*images, mask=None):
        regions = tuple(Region(LEFT, None, mask, number) for number in images)
        entity = Entity("person", ANN, regions=tuple(range(len(images))))
        event = Event("meet", arguments=(Argument("Agent", regions=entity.regions),))
        return Record("Ann left Rome", "x", regions, (entity,), events=(event,), more_images=("y",))

    def right(measure, predicted, gold):
        counts = {one.name: one.count for task in ("mner", "meae") for one in measures_of(task)}
        return sum(one.true_positives for one in counts[measure](predicted, gold).values())

    of_entities = ("grounded", "GMNER", "EEG", "pointing")
    for mask in (None, Mask((1, 2), (0, 1, 1))):
        for name in (*of_entities, "visual instance", "visual union", "strict"):
            assert right(name, found(1, mask=mask), found(1, mask=mask)) > 0, name
        for name in (*of_entities, "visual instance", "visual union"):
            assert right(name, found(1, mask=mask), found(0, mask=mask)) == 0, name
    assert [right(name, found(0, 1), found(1, 0)) for name in ("grounded", "visual instance")] == [1, 2]
    assert right("visual union", found(0, 1), found(1, 0)) == 2  # one box around all in each image
