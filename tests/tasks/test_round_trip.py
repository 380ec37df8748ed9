"""Round trip of all styles: a loss that the docstring of a style does not document is a failure."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from published import FILES, published
from random_records import asked_about, losses, random_record

from umie.records import Record
from umie.tasks import Task, registry

TASKS = ("mner", "mre", "med", "meae")
STYLES = ("structured", "paper", "released")


def check(name: str, record: Record, labels: tuple[str, ...] | None = None) -> Counter[tuple[str, str]]:
    """Write and parse the answers to all queries in every style; count queries and losses by style and reason."""
    found: Counter[tuple[str, str]] = Counter()
    plain: Task[Any] = registry.build(name, labels=labels)
    structured = plain.queries(record)
    variants = [(style, {}) for style in STYLES] + ([("structured", {"grounded": True})] if name == "mner" else [])
    for style, options in variants:
        task: Task[Any] = registry.build(name, labels=labels, style=style, **options)
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
@settings(deadline=None, max_examples=300)
@given(st.data())
def test_no_record_has_an_undocumented_loss(name: str, data: st.DataObject) -> None:
    record, labels = random_record(lambda low, high: data.draw(st.integers(low, high)))
    check(name, record, labels)


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


@pytest.mark.parametrize(("format_name", "file"), FILES)
def test_round_trip_of_published_records(format_name: str, file: str) -> None:
    for record in published(format_name, file):
        for name in record.tasks or ():
            check(name, record)
