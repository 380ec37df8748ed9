"""Leaks in the prompts of the built-in tasks and of tasks that leak on purpose."""

from dataclasses import replace

import pytest

from umie import tasks
from umie.audit import checks
from umie.audit.prompts import examine_prompts, schema_of
from umie.records import Argument, Entity, Event, Places, Record, Relation, Segment
from umie.tasks import Query
from umie.tasks.mner import MNER

TEXT = "Ann Lee met Bob Ray"
ANN, MET, BOB = (0, 7), (8, 11), (12, 19)
RECORDS = [
    Record(
        TEXT,
        entities=(Entity("person", ANN), Entity("person", BOB)),
        relations=(Relation("peer", ANN, BOB),),
        events=(Event("meet", MET, (Argument("Entity", ANN),)), Event("attack", BOB, (Argument("Target", ANN),))),
    ),
    Record("NASA in Rome", entities=(Entity("place", (8, 12)),), relations=(Relation("contain", (8, 12), (0, 4)),)),
]


def has_leak(report):
    return bool(
        report.label_dependent or report.only_gold_lists or report.answer_in_instruction or report.answer_in_text
    )


def report_of(name, records=RECORDS, schema=None):
    (report,) = [item for item in examine_prompts(records, schema or schema_of(records)) if item.task == name]
    return report


def leaking(leak):
    """A task whose only query is ``leak(task, record)``."""

    class Leaking(MNER):
        name = "leaking"

        def queries(self, record):
            return [leak(self, record)]

    return Leaking


@pytest.fixture
def leak(monkeypatch):
    """Return a function that registers a leaking task and returns its report."""

    def examine(function, records=RECORDS):
        monkeypatch.setitem(tasks.registry._parts, "leaking", leaking(function))
        checks.all_tasks.cache_clear()
        return report_of("leaking", records)

    yield examine
    checks.all_tasks.cache_clear()


def test_the_schema_of_records():
    records = [*RECORDS, Record("x", labels={"mner": ("animal",), "unheard": ("of",)})]
    assert schema_of(records) == {
        "meae": ("Entity", "Target"),
        "med": ("meet", "attack"),
        "mner": ("person", "place", "animal"),
        "mre": ("peer", "contain"),
    }


def test_records_of_another_task_are_left_out():
    assert schema_of([replace(RECORDS[0], tasks=("mner",))]) == {"mner": ("person",)}
    assert examine_prompts(RECORDS, {}) == []


def test_meae_names_the_gold_event_type():
    report = report_of("meae")
    assert (report.queries, report.label_dependent, has_leak(report)) == (2, 2, True)


def test_mre_names_the_pair_and_not_its_relation():
    report = report_of("mre")
    assert (report.queries, report.span_dependent, report.label_dependent, has_leak(report)) == (2, 2, 0, False)


@pytest.mark.parametrize("name", ["mner", "med"])
def test_the_others_name_nothing(name):
    report = report_of(name)
    figures = report.summary()
    for key in ("label_dependent", "span_dependent", "partial_lists", "answer_in_instruction", "answer_in_text"):
        assert figures[key] == 0, key


def test_a_list_of_gold_labels_only(leak):
    def query(task, record):
        return Query(f"Extract: {', '.join(dict.fromkeys(task.used_labels(record)))}.", "x")

    report = leak(query)
    assert (report.partial_lists, report.only_gold_lists, report.label_dependent) == (2, 2, 2)
    assert has_leak(report)


def test_a_shuffled_whole_list_is_none(leak):
    report = leak(lambda task, record: Query(f"Extract: {', '.join(task.labels[::-1])}.", "x"))
    assert (report.partial_lists, report.only_gold_lists, has_leak(report)) == (0, 0, False)


def test_the_answer_in_the_instruction(leak):
    report = leak(lambda task, record: Query("Extract person, place. Ann Lee is a person", "Ann Lee is a person"))
    assert (report.answer_in_instruction, has_leak(report)) == (2, True)


def test_the_answer_in_the_text(leak):
    report = leak(lambda task, record: Query("Extract person, place.", "in Rome"))
    assert report.answer_in_text == 0  # too short to be more than a coincidence
    report = leak(lambda task, record: Query("Extract person, place.", "NASA in Rome"))
    assert (report.answer_in_text, has_leak(report)) == (1, True)


def test_labels_in_the_text():
    records = [
        Record("a person met me", entities=(Entity("person", (2, 8)),)),
        Record("Ann met me", entities=(Entity("person", (0, 3)),)),
        Record("in a place of impersonation", entities=(Entity("part of", (0, 2)),)),
    ]
    report = report_of("mner", records, {"mner": ("person", "part of", "place")})
    assert report.gold_label_in_text == pytest.approx(1 / 3)
    assert report.other_label_in_text == pytest.approx(1 / 6)


def test_the_embedded_data_set(embedded_records):
    records = [replace(record, image=None) if record.text else record for record in embedded_records]
    reports = {item.task: item for item in examine_prompts(records, schema_of(records))}
    assert {name for name, report in reports.items() if has_leak(report)} == {"meae"}


def test_items_without_a_span_are_examined():
    heard = Places(segments=(0,))
    record = Record(
        "",
        audio="a.wav",
        segments=(Segment((0, 1)),),
        entities=(Entity("person", None, "", *heard),),
        relations=(Relation("peer", None, None, heard, heard),),
        events=(Event("meet", None, (Argument("Entity", None, *heard),), *heard),),
    )
    reports = {item.task: item for item in examine_prompts([*RECORDS, record], schema_of([*RECORDS, record]))}
    assert {name: item.queries for name, item in reports.items()} == {"mner": 3, "mre": 3, "med": 3, "meae": 3}
    assert not reports["mner"].label_dependent
