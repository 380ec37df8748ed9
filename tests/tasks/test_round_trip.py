"""Round trip of all styles: a loss that the docstring of a style does not document is a failure."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from published import FILES, published
from random_records import asked_about, losses, random_grounded_record, random_record

from umie.records import Record
from umie.tasks import Task, registry

TASKS = ("mner", "mre", "med", "meae")
STYLES = ("structured", "paper", "released")


def check(name: str, record: Record, labels: tuple[str, ...] | None = None) -> Counter[tuple[str, str]]:
    """Write and parse the answers to all queries in every style; count queries and losses by style and reason."""
    found: Counter[tuple[str, str]] = Counter()
    plain: Task[Any] = registry.build(name, labels=labels)
    structured = plain.queries(record)
    for style in STYLES:
        task: Task[Any] = registry.build(name, labels=labels, style=style)
        for query, reference in zip(task.queries(record), structured, strict=True):
            expected = asked_about(task, record, query)
            answer = task.parse(query.answer, record, query.target)
            reasons = losses(task, record, reference)
            is_preserved = set(answer) == expected and len(answer) == len(expected) and not answer.dropped
            assert is_preserved or reasons, (style, query.answer, answer, expected)
            found[style, "queries"] += 1
            if not is_preserved:
                found[style, " + ".join(sorted(reasons))] += 1
    return found


@pytest.mark.parametrize("name", TASKS)
@given(st.data())
def test_no_record_has_an_undocumented_loss(name: str, data: st.DataObject) -> None:
    record, labels = random_record(lambda low, high: data.draw(st.integers(low, high)))
    check(name, record, labels)


def check_grounded(name: str, record: Record, labels: tuple[str, ...]) -> int:
    """Write and parse the grounded answers to all queries, which are lossless; return their number."""
    task: Task[Any] = registry.build(name, labels=labels, grounded=True)
    queries = task.queries(record)
    for query in queries:
        answer = task.parse(query.answer, record, query.target)
        assert (set(answer), answer.dropped) == (asked_about(task, record, query), 0), query.answer
    return len(queries)


@pytest.mark.parametrize("name", TASKS)
@given(st.data())
def test_grounded_answers_are_lossless(name: str, data: st.DataObject) -> None:
    check_grounded(name, *random_grounded_record(lambda low, high: data.draw(st.integers(low, high))))


@pytest.mark.slow
@pytest.mark.parametrize("name", TASKS)
def test_grounded_answers_of_many_records_are_lossless(name: str) -> None:
    drawn = (random_grounded_record(random.Random(f"{name}/{seed}").randint) for seed in range(20_000))
    assert sum(check_grounded(name, *one) for one in drawn) > 10_000


def check_random(name: str, num_records: int) -> Counter[tuple[str, str]]:
    found: Counter[tuple[str, str]] = Counter()
    for seed in range(num_records):
        record, labels = random_record(random.Random(f"{name}/{seed}").randint)
        found += check(name, record, labels)
    return found


@pytest.mark.parametrize("name", TASKS)
def test_round_trip_of_random_records(name: str) -> None:
    found = check_random(name, 1000)
    assert found["structured", "queries"] > 500
    # losses are the exception even here, although the texts provoke them
    for style in STYLES:
        lost = sum(count for (where, reason), count in found.items() if where == style and reason != "queries")
        assert lost < found[style, "queries"] * (0 if style == "structured" else 0.75) + 1


@pytest.mark.slow
@pytest.mark.parametrize("name", TASKS)
def test_round_trip_of_20_000_random_records(name: str) -> None:
    found = check_random(name, 20_000)
    print(f"\n{name}: {dict(found)}")  # noqa: T201 - the numbers of the documentation
    assert found["structured", "queries"] >= 10_000


LARGE = [pytest.param(*one, marks=pytest.mark.slow) for one in FILES if "train" in one[1]]


@pytest.mark.parametrize(("format_name", "file"), [*(one for one in FILES if "train" not in one[1]), *LARGE])
def test_round_trip_of_published_records(format_name: str, file: str) -> None:
    for record in published(format_name, file):
        for name in record.tasks or ():
            check(name, record)
