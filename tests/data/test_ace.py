"""The ace format on small files with invented sentences."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from samples import SENTENCE

from umie.data import registry
from umie.data.ace import EVENT_TYPES
from umie.errors import UmieError
from umie.records import Argument, Entity, Event, Record, Relation


def changed(change: str, value: object) -> dict[str, Any]:
    """Return the sentence with one place changed, such as 'event_mentions.0.trigger.end'."""
    sentence = copy.deepcopy(SENTENCE)
    *parents, last = (int(key) if key.isdigit() else key for key in change.split("."))
    target: Any = sentence
    for key in parents:
        target = target[key]
    if value is KeyError:
        del target[last]
    else:
        target[last] = value
    return sentence


def read(folder: Path, *sentences: object, **options: object) -> list[Record]:
    path = folder / "train.oneie.json"
    path.write_text("".join(json.dumps(sentence) + "\n" for sentence in sentences))
    return list(registry.build("ace", path=path, **options))


def message(folder: Path, *sentences: object, **options: object) -> str:
    with pytest.raises(UmieError) as caught:
        read(folder, *sentences, **options)
    return str(caught.value).removeprefix(f"{folder / 'train.oneie.json'}:")


def test_a_sentence_with_entities_a_relation_and_an_event(tmp_path: Path) -> None:
    (record,) = read(tmp_path, SENTENCE)
    assert record.text == "Ann Lee shot Bo in Rome ."
    assert record.entities == (
        Entity("person", (0, 7), "Ann Lee"),
        Entity("person", (13, 15), "Bo"),
        Entity("geopolitical entity", (19, 23), "Rome"),
    )
    assert record.relations == (Relation("physical", (13, 15), (19, 23)),)
    arguments = (Argument("Attacker", (0, 7)), Argument("Target", (13, 15)))
    assert record.events == (Event("attack", (8, 12), arguments),)
    assert (record.id, record.source) == ("D-1", "ACE-2005: train.oneie.json")
    assert record.tasks == ("mner", "mre", "med", "meae")


@pytest.mark.parametrize(
    ("name", "label"),
    [
        ("Justice:Arrest-Jail", "arrest jail"),
        ("Transaction:Transfer-Money", "transfer"),
        ("Transaction:Transfer-Ownership", "transfer ownership"),
        ("Life:Be-Born", "be born"),
        ("Contact:Phone-Write", "phone write"),
        ("Personnel:End-Position", "end position"),
    ],
)
def test_events_are_called_as_in_m2e2(tmp_path: Path, name: str, label: str) -> None:
    (record,) = read(tmp_path, changed("event_mentions.0.event_type", name))
    assert record.events[0].type == label
    assert label in EVENT_TYPES


def test_the_schema_has_the_7_6_and_33_types_of_ace(tmp_path: Path) -> None:
    (record,) = read(tmp_path, SENTENCE)
    sizes = {task: len(set(labels)) for task, labels in (record.labels or {}).items()}
    assert (sizes["mner"], sizes["mre"], sizes["med"]) == (7, 6, 33)


def test_names_that_ace_does_not_have_are_kept(tmp_path: Path) -> None:
    (record,) = read(tmp_path, changed("entity_mentions.0.entity_type", "JOB-TITLE"))
    assert record.entities[0].type == "job title"
    (record,) = read(tmp_path, changed("relation_mentions.0.relation_type", "PHYS:Near"))
    assert record.relations[0].type == "physical"


def test_a_relation_names_its_ends_by_role(tmp_path: Path) -> None:
    turned = [dict(item, role=role) for item, role in zip(
        SENTENCE["relation_mentions"][0]["arguments"], ("Arg-2", "Arg-1"), strict=True
    )]  # fmt: skip
    (record,) = read(tmp_path, changed("relation_mentions.0.arguments", turned))
    assert record.relations == (Relation("physical", (19, 23), (13, 15)),)


def test_a_sentence_without_a_name_is_named_by_its_line(tmp_path: Path) -> None:
    records = read(tmp_path, changed("sent_id", KeyError), {**changed("sent_id", KeyError), "wnd_id": "W-2"})
    assert [record.id for record in records] == ["train.oneie.json:1", "W-2"]


@pytest.mark.parametrize(
    ("change", "value", "problem"),
    [
        ("tokens", KeyError, "the line has no field 'tokens'"),
        ("tokens", [], "there are no tokens: every record needs a text"),
        ("entity_mentions", KeyError, "the line has no field 'entity_mentions'"),
        ("event_mentions", {}, "field 'event_mentions' of the line is {}: expected a list"),
        ("entity_mentions.0", 5, "the entity is 5: expected an object with the field 'entity_type'"),
        ("entity_mentions.0.id", KeyError, "the entity has no field 'id'"),
        ("entity_mentions.0.end", 9, "the entity 'PER' is at tokens [0, 9] of 7: expected 0 <= start < end"),
        ("entity_mentions.0.start", None, "the entity 'PER' is at [None, 2]: expected two token offsets"),
        (
            "entity_mentions.0.text",
            "Ann",
            "the entity 'PER' is named 'Ann', but its tokens are 'Ann Lee'",
        ),
        (
            "relation_mentions.0.arguments.0.entity_id",
            "E9",
            "an argument of the relation 'PHYS' is the unknown entity 'E9'",
        ),
        (
            "relation_mentions.0.arguments.0.role",
            "Arg-3",
            "the relation 'PHYS' has the arguments ['Arg-2', 'Arg-3']: expected Arg-1 and Arg-2",
        ),
        ("event_mentions.0.event_type", ":", "event type is ':': expected a name such as 'Justice:Arrest-Jail'"),
        ("event_mentions.0.trigger", KeyError, "the event 'attack' has no field 'trigger'"),
        ("event_mentions.0.trigger.text", "hit", "the trigger of 'attack' is named 'hit', but its tokens are 'shot'"),
        (
            "event_mentions.0.arguments.0.entity_id",
            "E9",
            "an argument of the event 'attack' is the unknown entity 'E9'",
        ),
        ("event_mentions.0.arguments.0.role", "", "field 'role' of an argument of the event 'attack' is ''"),
    ],
)
def test_errors_name_file_and_line(tmp_path: Path, change: str, value: object, problem: str) -> None:
    assert message(tmp_path, SENTENCE, changed(change, value)).startswith(f"2: {problem}")


def test_lines_that_are_no_json(tmp_path: Path) -> None:
    path = tmp_path / "train.oneie.json"
    for line in ("{", "[" * 100_000, "1" * 5000):
        path.write_text(line)
        with pytest.raises(UmieError, match=r"train\.oneie\.json:1: not valid JSON: "):
            list(registry.build("ace", path=path))
    assert message(tmp_path, [1]) == "1: the line is [1]: expected an object with the field 'tokens'"


def test_images_and_regions_are_refused(tmp_path: Path) -> None:
    assert message(tmp_path, images=tmp_path) == " the format 'ace' has no images; leave images out"
    assert message(tmp_path, regions=tmp_path) == " the format 'ace' has no separate region files; leave regions out"
