"""Answers do not depend on batch size, order, other records, or repetitions."""

import random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from umie.evaluation.answers import answer_queries
from umie.extraction import Extractor
from umie.extraction.extractor import WINDOW_BATCHES
from umie.records import Record


@pytest.fixture(scope="module")
def inputs(records):
    """Records with and without images, some of them twice, and texts of different lengths."""
    texts = ["Rome", "Ann met Bob", "a " * 40 + "summit in Oslo", "Kids at the Salvation Army in Zürich 🙂"]
    seen, other = records[0], records[1]
    same_text = [
        Record(seen.text, regions=seen.regions),
        Record(seen.text, other.image, seen.regions),
        Record(seen.text, seen.image, seen.regions[:1]),
        Record(seen.text, seen.image),
    ]
    return [*records, *records[:3], *texts, *same_text, Record("", seen.image, seen.regions)]


@pytest.fixture(scope="module")
def one_by_one(learned, inputs):
    """Each input by itself, in a batch of one."""
    single = Extractor(*learned, batch_size=1)
    return [single.extract(item) for item in inputs]


def gates(extraction):
    return [-9.0 if answer.gate is None else answer.gate for answer in extraction.answers]


def probabilities(extraction):
    events = [(event, *event.arguments) for event in extraction.events]
    items = [*extraction.entities, *extraction.record.relations, *(one for own in events for one in own)]
    return [one.probability for one in items]


def check(found, one_by_one):
    assert found == one_by_one
    assert probabilities(found) == pytest.approx(probabilities(one_by_one), abs=1e-5)
    assert [answer.output for answer in found.answers] == [answer.output for answer in one_by_one.answers]
    assert gates(found) == pytest.approx(gates(one_by_one), abs=1e-5)


def test_something_is_found(one_by_one):
    """Otherwise the other tests would compare empty results."""
    assert sum(map(len, (found.entities for found in one_by_one))) > 10
    assert sum(len(event.arguments) for found in one_by_one for event in found.events) > 10
    assert any(found.relations for found in one_by_one)
    assert any(gate > -9 for found in one_by_one for gate in gates(found))


@pytest.mark.parametrize(("batch_size", "constrained"), [(7, True), (32, False)])
def test_batches_of_any_size(learned, inputs, one_by_one, batch_size, constrained):
    if not constrained:
        single = Extractor(*learned, batch_size=1, constrained=False)
        one_by_one = [single.extract(item) for item in inputs]
    found = Extractor(*learned, batch_size=batch_size, constrained=constrained).extract(inputs)
    assert len(found) == len(inputs)
    for one, expected in zip(found, one_by_one, strict=True):
        check(one, expected)


@settings(max_examples=8, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 10**6), batch_size=st.integers(1, 12))
@pytest.mark.slow
def test_any_neighbors_in_any_order(learned, inputs, one_by_one, seed, batch_size):
    rng = random.Random(seed)
    chosen = rng.choices(range(len(inputs)), k=rng.randint(1, 16))
    found = Extractor(*learned, batch_size=batch_size).extract_many(inputs[index] for index in chosen)
    for index, one in zip(chosen, found, strict=True):
        check(one, one_by_one[index])


def test_repeated_records_are_asked_once_and_keep_their_ids(extractor, records, monkeypatch):
    asked = []
    monkeypatch.setattr(
        "umie.extraction.extractor.answer_queries",
        lambda *parts, **options: asked.append(len(parts[3])) or answer_queries(*parts, **options),
    )
    twice = [Record("Ann met Bob", id="1"), Record("Ann met Bob", id="2", source="s"), Record("Ann met Bob !", id="3")]
    found = extractor.extract(twice, tasks=["mner"])
    assert asked == [2]
    assert [one.record.id for one in found] == ["1", "2", "3"]
    assert found[1].record.source == "s"


def test_records_that_differ_only_in_the_image_are_asked_separately(extractor, inputs, records):
    found = [gates(one) for one in extractor.extract(inputs[-5:-1], tasks=["mner"])]
    assert found[0] == [-9.0]
    assert len({tuple(one) for one in found}) == 4


def test_a_stream_is_read_lazily(extractor):
    """A long stream does not have to fit into memory."""
    taken = []

    def endless():
        while True:
            taken.append(None)
            yield f"Ann {len(taken)}"

    found = extractor.extract_many(endless(), tasks=["mner"])
    assert next(found).text == "Ann 1"
    assert next(found).text == "Ann 2"
    assert len(taken) <= WINDOW_BATCHES * extractor.batch_size


def test_an_error_of_the_source_costs_nothing_that_came_before_it(extractor):
    def source():
        yield from ("Ann", "Bob")
        raise OSError("the line was cut")

    found = []
    with pytest.raises(OSError, match="the line was cut"):
        found.extend(extractor.extract_many(source()))
    assert [one.text for one in found] == ["Ann", "Bob"]
    assert [one.text for one in extractor.extract_many(["Cy"])] == ["Cy"]
