"""Published scores: each from its table, and only where the same task is scored."""

import pytest

from umie.errors import UmieError
from umie.experiments.reference import paper, published, read_reference
from umie.experiments.scored_tasks import ScoredTask


def asked(data_set, task, wording=None):
    key = f"{data_set} {task}" + ("" if wording is None else f" [{wording}]")
    return ScoredTask(key, key, data_set, task, "predicted", False, None if wording is None else {})


def test_the_main_table_as_printed():
    scored = [
        asked(*pair)
        for pair in (
            ("twitter15", "mner"), ("twitter17", "mner"), ("snap", "mner"), ("mnre1", "mre"), ("mnre2", "mre"),
            ("m2e2", "med"), ("m2e2", "meae"), ("mine", "mner"),
        )
    ]  # fmt: skip
    rows = read_reference(["paper-table-4-base", "paper-table-4-large", "paper-table-4-xl"])
    found = [
        [None if value is None else round(100 * value, 1) for value in row.values] for row in published(rows, scored)
    ]
    assert found == [
        [76.1, 88.1, 87.7, 84.3, 74.8, 60.5, 22.5, None],
        [77.2, 90.7, 90.5, 85.0, 75.5, 61.0, 23.6, None],
        [78.2, 91.4, 91.0, 86.4, 76.2, 62.1, 24.5, None],
    ]


def test_wordings_are_separate_if_each_is_scored():
    rows = read_reference("paper-table-7-base")
    scored = [asked("twitter17", "mner", wording) for wording in ("I0", "I1", "I2", "own")]
    ((title, source, values),) = published(rows, scored)
    assert (title, source, values[3]) == ("paper: UMIE-Base", "Table 7", None)
    assert values[:3] == pytest.approx([0.88, 0.881, 0.882])
    titles = [title for title, _, _ in published(rows, [asked("twitter17", "mner")])]
    assert titles == ["paper: UMIE-Base, I0", "paper: UMIE-Base, I1", "paper: UMIE-Base, I2"]


def test_custom_scores():
    (row,) = read_reference({"title": "last year", "source": "our report", "mine": {"mner": 50}})
    assert published([row], [asked("mine", "mner"), asked("mine", "mre")]) == [("last year", "our report", [0.5, None])]
    assert published([row], [asked("other", "mner")]) == []


@pytest.mark.parametrize("value", ["paper", {"mine": {"mner": "high"}}, {"mine": {"mner": True}}, 3, [["x"]]], ids=str)
def test_other_values_are_rejected(value):
    with pytest.raises(UmieError):
        read_reference(value)


def test_every_number_of_the_paper_has_a_source():
    for table in paper()["tables"].values():
        assert table["source"] and table["title"]
    for figures in paper()["gate"].values():
        assert figures["source"]
