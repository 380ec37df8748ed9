"""Properties of scores for any records."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from umie.records import Argument, Entity, Event, Record, Region, Relation
from umie.scoring import MEASURES, Prediction, Sheet, score_predictions

TEXT = "a b c d e f"
SPANS = st.builds(lambda start, size: (2 * start, 2 * start + 2 * size - 1), st.integers(0, 3), st.integers(1, 2))
LABELS = st.sampled_from(["x", "y", "two words", "none"])
EDGES = st.integers(0, 4).flatmap(lambda low: st.tuples(st.just(low), st.integers(low + 1, 5)))
BOXES = st.builds(lambda x, y: (x[0] / 5, y[0] / 5, x[1] / 5, y[1] / 5), EDGES, EDGES)


@st.composite
def records(draw):
    """Draw a record with items of all kinds, an image and regions."""
    boxes = draw(st.lists(BOXES, max_size=4))
    spans = st.builds(Argument, LABELS, SPANS)
    places = st.builds(
        lambda role, region: Argument(role, regions=(region,)), LABELS, st.integers(0, max(0, len(boxes) - 1))
    )
    arguments = st.lists(spans | places if boxes else spans, max_size=4)
    return Record(
        TEXT,
        image="1.jpg",
        regions=tuple(map(Region, boxes)),
        entities=tuple(draw(st.lists(st.builds(Entity, LABELS, SPANS), max_size=5))),
        relations=tuple(draw(st.lists(st.builds(Relation, LABELS, SPANS, SPANS), max_size=4))),
        events=tuple(draw(st.lists(st.builds(Event, LABELS, st.none() | SPANS, arguments), max_size=3))),
    )


PAIRS = st.lists(st.tuples(records(), records()), min_size=1, max_size=3)
some = settings(max_examples=40)  # each example has up to three pairs, counted by every measure


def sheet(measure, pairs):
    return Sheet.of([measure.count(predicted, gold) for predicted, gold in pairs])


@some
@given(PAIRS)
def test_a_perfect_prediction_scores_1(pairs):
    for measure in MEASURES:
        perfect = sheet(measure, [(gold, gold) for _, gold in pairs])
        for average in ("micro", "macro"):
            expected = (0, 0, 0) if perfect.is_empty else (1, 1, 1)
            assert perfect.score(average)[:3] == pytest.approx(expected), measure


@some
@given(PAIRS)
def test_scores_lie_between_0_and_1_and_counts_fit_together(pairs):
    for measure in MEASURES:
        found = sheet(measure, pairs)
        for average in ("micro", "macro"):
            assert all(0 <= value <= 1 for value in found.score(average)[:3]), measure
        for score in found.by_label().values():
            assert score.true_positives <= min(score.predicted, score.gold), measure


@some
@given(PAIRS, st.randoms(use_true_random=False))
def test_the_order_of_records_items_and_regions_changes_nothing(pairs, random):
    def shuffled(items):
        return random.sample(items, len(items))

    def mixed(record):
        order = shuffled(range(len(record.regions)))
        events = [
            replace(event, arguments=tuple(shuffled([_moved(argument, order) for argument in event.arguments])))
            for event in record.events
        ]
        return replace(
            record,
            regions=tuple(record.regions[place] for place in order),
            entities=tuple(shuffled(record.entities)),
            relations=tuple(shuffled(record.relations)),
            events=tuple(shuffled(events)),
        )

    changed = [(mixed(predicted), mixed(gold)) for predicted, gold in shuffled(pairs)]
    for measure in MEASURES:
        for average in ("micro", "macro"):
            expected = pytest.approx(sheet(measure, pairs).score(average))
            assert sheet(measure, changed).score(average) == expected, measure


def _moved(argument, order):
    return (
        argument
        if not argument.regions
        else replace(argument, regions=tuple(order.index(index) for index in argument.regions))
    )


@some
@given(PAIRS)
def test_swapping_gold_and_prediction_swaps_precision_and_recall(pairs):
    for measure in MEASURES:
        if measure.modality:  # only predictions may omit the trigger
            continue
        for average in ("micro", "macro"):
            precision, recall, f1, correct, predicted, gold = sheet(measure, pairs).score(average)
            turned = sheet(measure, [(gold, predicted) for predicted, gold in pairs]).score(average)
            assert turned == pytest.approx((recall, precision, f1, correct, gold, predicted)), measure


def with_wrong_item(kind, record, label, start):
    """Return the record with one more item that gold never has."""
    span = (start, start + 1)
    argument = Argument("never", span)
    added = {
        "entities": {"entities": (*record.entities, Entity(label, span))},
        "relations": {"relations": (*record.relations, Relation(label, span, (0, 1)))},
        "events": {"events": (*record.events, Event(label, span))},
        "arguments": {"events": (*record.events, Event("never", span, (argument,)))},
    }
    return replace(record, **added[kind])


@some
@given(PAIRS, st.sampled_from(["x", "never"]))
def test_an_additional_wrong_item_never_raises_f1(pairs, label):
    text = TEXT + " z"  # the last word is where no drawn item is
    longer = [(replace(predicted, text=text), replace(gold, text=text)) for predicted, gold in pairs]
    for measure in MEASURES:
        wrong = "never" if (measure.kind, measure.name) == ("events", "type") else label  # the type could be right
        worse = [(with_wrong_item(measure.kind, predicted, wrong, len(TEXT) + 1), gold) for predicted, gold in longer]
        for average in ("micro", "macro"):
            before, after = (sheet(measure, sides).score(average) for sides in (longer, worse))
            assert after.f1 <= before.f1 + 1e-12, measure


@settings(max_examples=25)  # each draws 100 resamples for every measure
@given(PAIRS, st.integers(0, 9))
def test_any_records_can_be_evaluated_and_a_system_equals_itself(pairs, seed):
    gold = [replace(record, tasks=("mner", "mre", "med", "meae")) for _, record in pairs]
    mine = [Prediction(record) for record, _ in pairs]
    report = score_predictions(gold, mine, other=mine, resamples=100, seed=seed)
    for line in report.lines:
        assert 0 <= line.interval[0] <= line.interval[1] <= 1
        assert (line.versus.difference, line.versus.p_bootstrap, line.versus.p_randomization) == (0, 1, 1)
    for item in report.released:
        assert 0 <= item.f1 <= 1
        assert sum(item.dropped.values()) <= item.gold


@settings(max_examples=25)
@given(st.integers(0, 2**32 - 1))
def test_the_interval_contains_the_score_of_a_reasonable_sample(seed):
    gold = [Record(TEXT, entities=(Entity("x", (0, 1)), Entity("y", (2, 3))))] * 40
    found = [replace(record, entities=record.entities[: place % 3]) for place, record in enumerate(gold)]
    report = score_predictions(gold, [Prediction(record) for record in found], resamples=200, seed=seed)
    for line in report.lines:
        assert line.interval[0] <= line.score.f1 <= line.interval[1]
