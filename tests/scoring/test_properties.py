"""What must hold for any records: hypothesis looks for a counterexample."""

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
    """Draw a record with anything in it, image and regions included."""
    boxes = draw(st.lists(BOXES, max_size=4))
    spans = st.builds(Argument, LABELS, SPANS)
    places = st.builds(
        lambda role, region: Argument(role, region=region), LABELS, st.integers(0, max(0, len(boxes) - 1))
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
some = settings(max_examples=40)  # each holds up to three pairs, counted by every figure


def sheet(figure, pairs):
    return Sheet.of([figure.count(predicted, gold) for predicted, gold in pairs])


@some
@given(PAIRS)
def test_a_perfect_prediction_has_all_right(pairs):
    for figure in MEASURES:
        perfect = sheet(figure, [(gold, gold) for _, gold in pairs])
        for average in ("micro", "macro"):
            expected = (0, 0, 0) if perfect.is_empty else (1, 1, 1)
            assert perfect.score(average)[:3] == pytest.approx(expected), figure


@some
@given(PAIRS)
def test_scores_lie_between_0_and_1_and_counts_fit_together(pairs):
    for figure in MEASURES:
        found = sheet(figure, pairs)
        for average in ("micro", "macro"):
            assert all(0 <= value <= 1 for value in found.score(average)[:3]), figure
        for score in found.by_label().values():
            assert score.true_positives <= min(score.predicted, score.gold), figure


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
    for figure in MEASURES:
        for average in ("micro", "macro"):
            expected = pytest.approx(sheet(figure, pairs).score(average))
            assert sheet(figure, changed).score(average) == expected, figure


def _moved(argument, order):
    return argument if argument.region is None else replace(argument, region=order.index(argument.region))


@some
@given(PAIRS)
def test_precision_and_recall_change_places_with_gold_and_prediction(pairs):
    for figure in MEASURES:
        if figure.split:  # only a prediction may rest on the image alone
            continue
        for average in ("micro", "macro"):
            precision, recall, f1, right, predicted, gold = sheet(figure, pairs).score(average)
            turned = sheet(figure, [(gold, predicted) for predicted, gold in pairs]).score(average)
            assert turned == pytest.approx((recall, precision, f1, right, gold, predicted)), figure


def with_wrong_item(task, record, label, start):
    """Return the record with an item of a label, at a place, that gold never has."""
    span = (start, start + 1)
    argument = Argument("never", span)
    added = {
        "mner": {"entities": (*record.entities, Entity(label, span))},
        "mre": {"relations": (*record.relations, Relation(label, span, (0, 1)))},
        "med": {"events": (*record.events, Event(label, span))},
        "meae": {"events": (*record.events, Event("never", span, (argument,)))},
    }
    return replace(record, **added[task])


@some
@given(PAIRS, st.sampled_from(["x", "never"]))
def test_a_wrong_item_more_never_raises_f1(pairs, label):
    text = TEXT + " z"  # the last word is where no drawn item is
    longer = [(replace(predicted, text=text), replace(gold, text=text)) for predicted, gold in pairs]
    for figure in MEASURES:
        wrong = "never" if (figure.task, figure.name) == ("med", "type") else label  # its type alone could be right
        worse = [(with_wrong_item(figure.task, predicted, wrong, len(TEXT) + 1), gold) for predicted, gold in longer]
        for average in ("micro", "macro"):
            before, after = (sheet(figure, sides).score(average) for sides in (longer, worse))
            assert after.f1 <= before.f1 + 1e-12, figure


@settings(max_examples=25)  # each draws 100 resamples for every figure
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
def test_the_interval_holds_the_score_of_a_reasonable_sample(seed):
    gold = [Record(TEXT, entities=(Entity("x", (0, 1)), Entity("y", (2, 3))))] * 40
    found = [replace(record, entities=record.entities[: place % 3]) for place, record in enumerate(gold)]
    report = score_predictions(gold, [Prediction(record) for record in found], resamples=200, seed=seed)
    for line in report.lines:
        assert line.interval[0] <= line.score.f1 <= line.interval[1]
