"""Tasks: instructions, queries about records, and parsed answers."""

import tracemalloc
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from umie.errors import UmieError
from umie.records import Argument, Entity, Event, Record, Region, Relation
from umie.tasks import Query, Task, TaskConfig, ordered, registry
from umie.tasks.base import Pair

MNER = "person, location, miscellaneous, organization"
MRE = (
    "part of, contain, present in, none, held on, member of, peer, place of residence, locate at, "
    "alternate names, neighbor, subsidiary, awarded, couple, parent, nationality, place of birth, charges, "
    "siblings, religion, race"
)
MED = "arrest jail, meet, attack, transport, demonstrate, phone write, die, transfer"
MEAE = (
    "Agent, Person, Place, Instrument, Attacker, Target, Victim, Entity, Police, Artifact, Vehicle, "
    "Destination, Origin, Giver, Recipient, Money"
)
MEAE_I0 = f"Given an meet event and the argument types: {MEAE}. Please extract the specified argument type."
# characters:  0         1         2         3
#              0123456789012345678901234567890123456789
TEXT = "Ann met Bob [NY] in NY"
ANN, MET, BOB, NY, NY_AGAIN = (0, 3), (4, 7), (8, 11), (13, 15), (20, 22)
BOXES = (Region((0.0, 0.0, 0.5, 1.0)), Region((0.5, 0.0, 1.0, 1.0)))
RECORD = Record(
    TEXT,
    regions=BOXES,
    entities=(Entity("location", NY_AGAIN), Entity("person", ANN), Entity("location", NY)),
    relations=(Relation("peer", ANN, BOB), Relation("none", ANN, NY), Relation("couple", ANN, BOB)),
    events=(
        Event("meet", MET, (Argument("Entity", regions=(1,)), Argument("Entity", BOB), Argument("Entity", ANN))),
        Event("attack", None, (Argument("Target", regions=(0,)),)),
        Event("die", BOB),
    ),
)


def build(name: str, **config: Any) -> Task[Any]:
    return registry.build(name, **config)


def instructions(name: str, **config: Any) -> list[str]:
    return [query.instruction for query in build(name, **config).queries(RECORD)]


@pytest.mark.parametrize(
    ("name", "variant", "expected"),
    [
        ("mner", "paper", f"Please extract the following entity type: {MNER}."),
        ("mner", "I0", f"Given the entity types: {MNER}. Please extract the specified entity type."),
        ("mner", "I1", f"Identity the following entity type from the given sentence: {MNER}."),
        ("mner", "I2", f"Please extract entity type in the sentence. Option: {MNER}."),
        ("mre", "paper", f"Please extract the following relation between Ann and Bob: {MRE}."),
        ("mre", "I0", f"Given the relations: {MRE}. Please extract the relation between Ann and Bob."),
        ("mre", "I1", f"Identify the relation between Ann and Bob from the given sentence: {MRE}."),
        ("mre", "I2", f"Please extract the relation between Ann and Bob in the sentence. Option: {MRE}."),
        ("med", "paper", f"Please extract the following event type: {MED}."),
        ("med", "I0", f"Given the event types: {MED}. Please extract the specified event type."),
        ("med", "I1", f"Identify the following event type from the given sentence: {MED}."),
        ("med", "I2", f"Please extract event type in the sentence. Option: {MED}."),
        ("meae", "paper", f"Given an meet event, please extract the corresponding argument type: {MEAE}."),
        ("meae", "I0", MEAE_I0),
        ("meae", "I1", f"Identify the argument type of the meet event from the given sentence: {MEAE}."),
        ("meae", "I2", f"Please extract argument type of the meet event in the sentence. Option: {MEAE}."),
    ],
)
def test_instructions_are_the_papers(name: str, variant: str, expected: str) -> None:
    assert instructions(name, variant=variant)[0] == expected


def test_the_paper_names_are_the_default() -> None:
    assert ordered() == ("mner", "mre", "med", "meae")
    assert [instructions(name) == instructions(name, variant="paper") for name in ordered()] == [True] * 4


@pytest.mark.parametrize("name", ["mner", "mre", "med", "meae"])
def test_a_custom_schema_is_listed_in_its_order(name: str) -> None:
    task = build(name, labels=["zeta {x}", "alpha"])
    assert task.labels == ("zeta {x}", "alpha")
    assert all(query.instruction.endswith(": zeta {x}, alpha.") for query in task.queries(RECORD))


def test_braces_in_a_head_are_not_fields() -> None:
    record = Record("{labels} met {0}", relations=(Relation("peer", (0, 8), (13, 16)),))
    (query,) = build("mre", labels=["peer"]).queries(record)
    assert query.instruction == "Please extract the following relation between {labels} and {0}: peer."


def test_mner_asks_once_and_lists_entities_by_position() -> None:
    (query,) = build("mner").queries(RECORD)
    assert query.answer == "[person: Ann] [location: NY] [location: NY]2"
    assert query.target is None


def test_mre_asks_once_for_each_pair() -> None:
    first, second = build("mre").queries(RECORD)
    assert (first.answer, first.target) == ("[peer] [couple]", Pair(ANN, BOB))
    assert (second.answer, second.target) == ("[none]", Pair(ANN, NY))
    assert "between Ann and NY:" in second.instruction


def test_med_asks_once_and_lists_events_without_a_trigger_first() -> None:
    (query,) = build("med").queries(RECORD)
    assert query.answer == "[attack] [meet: met] [die: Bob]"


def test_meae_asks_once_for_each_event() -> None:
    queries = build("meae").queries(RECORD)
    assert [query.answer for query in queries] == [
        "[Entity: Ann] [Entity: Bob] [Entity = O2]",
        "[Target = O1]",
        "",
    ]
    assert [query.target for query in queries] == [Event("meet", MET), Event("attack"), Event("die", BOB)]
    assert [query.instruction.split(",")[0] for query in queries] == [
        "Given an meet event",
        "Given an attack event",
        "Given an die event",
    ]


def test_meae_asks_once_for_events_that_a_query_cannot_distinguish() -> None:
    events = (Event("meet", MET, (Argument("Entity", ANN),)), Event("meet", MET, (Argument("Place", NY),)))
    (query,) = build("meae").queries(Record(TEXT, events=events))
    assert query.answer == "[Entity: Ann] [Place: NY]"


def test_a_bare_record_is_asked_about_entities_and_events_only() -> None:
    bare = Record("Nothing here .")
    assert {name: len(build(name).queries(bare)) for name in ordered()} == {
        "meae": 0,
        "med": 1,
        "mner": 1,
        "mre": 0,
    }
    assert [build(name).queries(bare)[0].answer for name in ("med", "mner")] == ["", ""]


@pytest.mark.parametrize("name", ["mner", "mre", "med", "meae"])
def test_parsed_items_can_be_put_into_a_record(name: str) -> None:
    task = build(name)
    found = [item for query in task.queries(RECORD) for item in answer(task, RECORD, query)]
    kept = task.with_items(RECORD, found)
    assert keys(task, kept) == keys(task, RECORD)
    assert [query.answer for query in task.queries(kept)] == [query.answer for query in task.queries(RECORD)]
    others = [other for other in ("mner", "mre") if other != name]
    assert [keys(build(other), kept) for other in others] == [keys(build(other), RECORD) for other in others]


@pytest.mark.parametrize("name", ["mre", "meae"])
def test_without_the_target_all_items_are_dropped(name: str) -> None:
    task = build(name)
    items = task.parse(task.queries(RECORD)[0].answer, RECORD)
    assert (list(items), items.dropped) == ([], {"mre": 2, "meae": 3}[name])


@pytest.mark.parametrize(
    ("name", "output"),
    [
        ("mner", "[person] [person = O1] [person: ]"),
        ("mre", "[peer: Ann] [peer = O1] [peer: ]"),
        ("med", "[meet = O1] [meet: ] [meet: dinner]"),
        ("meae", "[Entity] [Entity = O3] [Entity: dinner]"),
    ],
)
def test_items_outside_the_answer_schema_are_dropped(name: str, output: str) -> None:
    task = build(name)
    items = task.parse(output, RECORD, task.queries(RECORD)[0].target)
    assert (list(items), items.dropped) == ([], 3)


def test_a_label_outside_the_schema_is_kept() -> None:
    assert build("mner").parse("[ship: Ann]", RECORD) == [Entity("ship", ANN, "Ann")]


def test_items_are_distinct_and_in_order() -> None:
    items = build("mner").parse("[person: Bob] [person: Ann] [person: Bob]", RECORD)
    assert [item.text for item in items] == ["Bob", "Ann"]
    assert items.dropped == 0


@given(st.lists(st.tuples(st.integers(0, 60), st.integers(1, 12)), max_size=9), st.integers(1, 12))
def test_the_pairs_with_the_fewest_characters_between_them_are_asked_about(found: Any, limit: int) -> None:
    spans = sorted({(start, start + length) for start, length in found})
    record = Record("x" * 80, entities=[Entity("person", span) for span in spans])
    asked, number = registry.build("mre").with_subjects(record, record, from_source=True, max_subjects=limit)
    pairs = [(head, tail) for head in spans for tail in spans if head != tail]
    gaps = {(head, tail): max(head[0], tail[0]) - min(head[1], tail[1]) for head, tail in pairs}
    closest = sorted(pairs, key=lambda pair: (gaps[pair], pair))[:limit]
    assert [(item.head, item.tail) for item in asked.relations] == (sorted(closest) if len(pairs) > limit else pairs)
    assert number == len(pairs)


def test_the_pairs_of_thousands_of_entities_are_not_all_built() -> None:
    record = Record("ab " * 5000, entities=[Entity("person", (3 * place, 3 * place + 2)) for place in range(5000)])
    tracemalloc.start()
    asked, number = registry.build("mre").with_subjects(record, record, from_source=True, max_subjects=100)
    assert (len(asked.relations), number) == (100, 5000 * 4999)
    assert tracemalloc.get_traced_memory()[1] < 20e6
    tracemalloc.stop()


@pytest.mark.parametrize(("name", "label"), [("mner", "person"), ("mre", "none"), ("med", "meet"), ("meae", "Entity")])
def test_labels_outside_the_schema_are_named_with_the_nearest(name: str, label: str) -> None:
    build(name).check(RECORD)
    with pytest.raises(UmieError, match=rf"Unknown {name} label '\w+'\. (Did you mean .*)?Choices: {label}x\."):
        build(name, labels=[f"{label}x"]).check(RECORD)


@pytest.mark.parametrize(
    ("config", "problem"),
    [
        ({"variant": "papers"}, "Unknown instruction variant 'papers'. Did you mean 'paper'?"),
        (
            {"style": "papr"},
            "Unknown output style 'papr'. Did you mean 'paper'? Choices: paper, reamo, released, structured.",
        ),
        ({"labels": ()}, "labels is empty"),
        ({"labels": "person"}, "labels is 'person': expected a list of strings"),
        ({"labels": ("a", 5)}, "labels is ('a', 5): expected a list of strings"),
        ({"labels": 5}, "labels is 5: expected a list of strings"),
        ({"labels": ("a", "")}, "label '' is empty, repeated, or has surrounding whitespace"),
        ({"labels": ("a", "b", "a")}, "label 'a' is empty, repeated, or has surrounding whitespace"),
        ({"labels": (" a",)}, "label ' a' is empty, repeated, or has surrounding whitespace"),
    ],
)
def test_a_wrong_configuration_names_field_and_value(config: dict[str, Any], problem: str) -> None:
    with pytest.raises(UmieError) as caught:
        TaskConfig(**config)
    assert str(caught.value).startswith(problem)


@pytest.mark.parametrize("name", ["mner", "mre", "med", "meae"])
def test_an_unknown_option_is_named(name: str) -> None:
    with pytest.raises(UmieError, match=rf"Unknown option of task '{name}': 'label'\. Did you mean 'labels'\?"):
        build(name, label=["a"])


# special characters and few letters, so that spans repeat and overlap
TEXTS = st.text(st.sampled_from(list("ab |[]:=1O\n\xa0é")), min_size=1, max_size=20).filter(str.strip)
LABELS = st.text(st.sampled_from(list("ab |[]:=1O\né")), min_size=1, max_size=6).map(str.strip).filter(bool)


@st.composite
def records(draw: st.DrawFn) -> Record:
    text = draw(TEXTS)
    offsets = st.integers(0, len(text))
    spans = st.tuples(offsets, offsets).filter(lambda span: span[0] != span[1]).map(sorted).map(tuple)
    regions = draw(st.lists(st.sampled_from(BOXES), max_size=3))
    fillers = st.builds(Argument, LABELS, spans)
    if regions:
        fillers |= st.builds(Argument, LABELS, st.none(), st.integers(0, len(regions) - 1).map(lambda index: (index,)))
    return Record(
        text,
        regions=tuple(regions),
        entities=tuple(draw(st.lists(st.builds(Entity, LABELS, spans), max_size=4))),
        relations=tuple(draw(st.lists(st.builds(Relation, LABELS, spans, spans), max_size=4))),
        events=tuple(
            draw(st.lists(st.builds(Event, LABELS, st.none() | spans, st.lists(fillers, max_size=3)), max_size=3))
        ),
    )


def answer(task: Task[Any], record: Record, query: Query, output: str | None = None) -> Any:
    output = query.answer if output is None else output
    return task.parse(output, record, query.target)


def keys(task: Task[Any], record: Record) -> set[Any]:
    items = task.items(record)
    return {replace(item, arguments=()) for item in items} if task.name == "med" else set(items)


@pytest.mark.parametrize("name", ["mner", "mre", "med", "meae"])
@given(record=records())
def test_the_target_of_any_record_is_read_back(name: str, record: Record) -> None:
    task = build(name)
    answers = [answer(task, record, query) for query in task.queries(record)]
    assert [items.dropped for items in answers] == [0] * len(answers)
    assert {item for items in answers for item in items} == keys(task, record)


@pytest.mark.parametrize("name", ["mner", "mre", "med", "meae"])
@given(record=records(), output=st.text(st.sampled_from(list("ab |[]:=12O\n\xa0é")), max_size=40) | st.text())
def test_any_answer_is_read_and_fits_the_record(name: str, record: Record, output: str) -> None:
    task = build(name)
    for query in task.queries(record):
        items = answer(task, record, query, output)
        assert len(items) + items.dropped <= output.count("[") * 2 + 1
        task.with_items(record, items)  # a Record checks that its spans and regions exist
