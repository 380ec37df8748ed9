"""Custom instructions: templates with the fields of the task, checked when the task is built."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from umie import tasks
from umie.errors import UmieError
from umie.records import Event, Record, Relation

RECORD = Record("Ann met Bob .", relations=(Relation("peer", (0, 3), (8, 11)),), events=(Event("meet", (4, 7)),))


@pytest.mark.parametrize(
    ("task", "template", "expected"),
    [
        ("mner", "Name {labels}", "Name a, b"),
        ("mre", "{tail} of {head}? {labels}", "Bob of Ann? a, b"),
        ("med", "{labels}: {{which}}", "a, b: {which}"),
        ("meae", "{type} - {labels} - {type}", "meet - a, b - meet"),
    ],
)
def test_the_fields_are_filled_in(task, template, expected):
    built = tasks.registry.build(task, labels=("a", "b"), variant="I1", instruction=template)
    assert [query.instruction for query in built.queries(RECORD)] == [expected]


@pytest.mark.parametrize(
    ("task", "template", "expected"),
    [
        ("mner", "Name all {lables}", "has the unknown field {lables}; use {labels}"),
        ("mner", "Between {head}: {labels}", "has the unknown field {head}; use {labels}"),
        ("mre", "{labels} of {head}", "is missing the placeholder {tail}"),
        ("meae", "{labels}", "is missing the placeholder {type}"),
        ("med", "Events?", "is missing the placeholder {labels}"),
        ("mner", "{labels.__class__}", "has the unknown field {labels.__class__}"),
        ("mner", "{labels[0]}", "has the unknown field {labels[0]}"),
        ("mner", "{labels!r}", "has the unknown field {labels!r}"),
        ("mner", "{labels:>99999999999}", "has the unknown field {labels:>99999999999}"),
        ("mner", "{} {labels}", "has the unknown field {}"),
        ("mner", "{labels", "is not a valid template"),
        ("mner", " ", "instruction is ' '"),
        ("mner", 3, "instruction is 3"),
    ],
)
def test_an_invalid_template_is_an_error(task, template, expected):
    with pytest.raises(UmieError) as caught:
        tasks.registry.build(task, instruction=template)
    assert expected in str(caught.value)


@given(st.lists(st.sampled_from(["{labels}", "{head}", "{tail}", "{", "}", "{{", "}}", " is ", "!", ":", "[0]"])))
def test_any_template_is_filled_in_or_refused(parts):
    try:
        built = tasks.registry.build("mre", instruction="".join(parts))
    except UmieError:
        return
    (query,) = built.queries(RECORD)
    assert "Ann" in query.instruction and "Bob" in query.instruction and "member of" in query.instruction
