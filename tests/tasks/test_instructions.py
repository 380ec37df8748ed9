"""Instructions of one's own: a template with the task's fields, checked when the task is built."""

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
        ("mner", "Name all {lables}", "has the field {lables}: the task has {labels}"),
        ("mner", "Between {head}: {labels}", "has the field {head}: the task has {labels}"),
        ("mre", "{labels} of {head}", "lacks the field {tail}"),
        ("meae", "{labels}", "lacks the field {type}"),
        ("med", "Events?", "lacks the field {labels}"),
        ("mner", "{labels.__class__}", "has the field {labels.__class__}"),
        ("mner", "{labels[0]}", "has the field {labels[0]}"),
        ("mner", "{labels!r}", "has the field {labels!r}"),
        ("mner", "{labels:>99999999999}", "has the field {labels:>99999999999}"),
        ("mner", "{} {labels}", "has the field {}"),
        ("mner", "{labels", "is no template"),
        ("mner", " ", "instruction is ' ': write one"),
        ("mner", 3, "instruction is 3: give a string"),
    ],
)
def test_a_template_that_does_not_fit_is_named(task, template, expected):
    with pytest.raises(UmieError) as caught:
        tasks.registry.build(task, instruction=template)
    assert expected in str(caught.value)


@given(st.lists(st.sampled_from(["{labels}", "{head}", "{tail}", "{", "}", "{{", "}}", " is ", "!", ":", "[0]"])))
def test_a_template_is_filled_in_or_refused(parts):
    try:
        built = tasks.registry.build("mre", instruction="".join(parts))
    except UmieError:
        return
    (query,) = built.queries(RECORD)
    assert "Ann" in query.instruction and "Bob" in query.instruction and "member of" in query.instruction
