"""The swig format on small files with invented situations."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from samples import MAPPING, SITUATIONS

from umie.data import registry
from umie.data.ace_events import M2E2_EVENT_TYPES, M2E2_ROLES
from umie.data.swig import _mapping
from umie.errors import UmieError
from umie.records import Argument, Event, Record, Region

REAL_MAPPING = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "m2e2" / "ace_sr_mapping.txt"


def write(folder: Path, situations: Any = SITUATIONS, mapping: str | None = MAPPING) -> Path:
    path = folder / "train.json"
    path.write_text(json.dumps(situations))
    if mapping is not None:
        (folder / "ace_sr_mapping.txt").write_text(mapping)
    return path


def read(path: Path, **options: object) -> list[Record]:
    return list(registry.build("swig", path=path, **options))


def message(path: Path, **options: object) -> str:
    with pytest.raises(UmieError) as caught:
        read(path, **options)
    return str(caught.value)


def changed(**fields: object) -> dict[str, Any]:
    """Return the first situation with some fields changed."""
    situations = copy.deepcopy(SITUATIONS)
    situations["arresting_1.jpg"].update(fields)
    return situations


def test_a_mapped_verb_is_an_event_without_trigger(tmp_path: Path) -> None:
    record = read(write(tmp_path))[0]
    assert record.text == ""
    assert record.regions == (Region((0.1, 0.1, 0.3, 0.5), "n2"), Region((0.5, 0.0, 1.0, 1.0), "n3"))
    arguments = (Argument("Agent", regions=(0,)), Argument("Person", regions=(1,)))
    assert record.events == (Event("arrest jail", None, arguments),)
    assert (record.id, record.tasks) == ("arresting_1.jpg", ("med", "meae"))
    assert record.labels == {"med": ("arrest jail",), "meae": ("Agent", "Person")}
    assert record.source == "SWiG: train.json"


def test_a_verb_without_mapping_is_no_event_and_keeps_its_regions(tmp_path: Path) -> None:
    record = read(write(tmp_path))[1]
    assert (record.image, record.events) == ("knitting_2.jpg", ())
    assert [region.label for region in record.regions] == ["n1"]


def test_a_role_without_mapping_is_a_region_and_no_argument(tmp_path: Path) -> None:
    boxes = {"tool": [0, 0, 20, 20], **SITUATIONS["arresting_1.jpg"]["bb"]}
    record = read(write(tmp_path, changed(bb=boxes)))[0]
    assert [region.label for region in record.regions] == [None, "n2", "n3"]
    assert [argument.regions[0] for argument in record.events[0].arguments] == [1, 2]


@pytest.mark.parametrize(
    ("nouns", "label"),
    [
        (["a", "b", "b"], "b"),
        (["a", "b", "c"], "a"),
        (["", "b", "c"], "b"),
        (["", "", "c"], "c"),
        (["", "", ""], None),
        ([], None),
    ],
    ids=["most", "tie", "first who saw one", "only one", "nobody", "no frames"],
)
def test_annotators_vote_on_the_noun(tmp_path: Path, nouns: list[str], label: str | None) -> None:
    frames = [{"agent": noun} for noun in nouns]
    record = read(write(tmp_path, changed(frames=frames, bb={"agent": [0, 0, 20, 20]})))[0]
    assert record.regions[0].label == label
    assert record.events[0].arguments == (Argument("Agent", regions=(0,)),)


def test_images_lie_in_the_folder_if_one_is_given(tmp_path: Path) -> None:
    path = write(tmp_path)
    Image.new("RGB", (200, 100)).save(tmp_path / "arresting_1.jpg")
    assert read(path)[0].image_folder is None
    found = read(path, images=tmp_path)[0].image_path()
    assert found and found.exists()


def test_the_mapping_may_lie_elsewhere_and_must_lie_somewhere(tmp_path: Path) -> None:
    path = write(tmp_path, mapping=None)
    assert message(path).startswith(f"{tmp_path / 'ace_sr_mapping.txt'}: no such file: put ace_sr_mapping.txt of M2E2")
    (tmp_path / "mine.txt").write_text(MAPPING)
    assert len(read(path, mapping=tmp_path / "mine.txt")) == 2


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        (
            "arresting\tagent",
            "'arresting\\tagent' is not a mapping: expected verb<TAB>role<TAB>type<TAB>ACE role",
        ),
        ("a\tb\t\td", "'a\\tb\\t\\td' is not a mapping"),
        ("a\tb\tLife||\td", "event type is 'Life||': expected a name such as"),
        ("arresting\ttool\tLife||Die\tAgent", "'arresting\\ttool\\tLife||Die\\tAgent' contradicts an earlier line"),
        (
            "arresting\tagent\tJustice||Arrest|Jail\tPerson",
            "'arresting\\tagent\\tJustice||Arrest|Jail\\tPerson' contradicts an earlier line",
        ),
    ],
)
def test_errors_in_the_mapping_name_file_and_line(tmp_path: Path, line: str, problem: str) -> None:
    path = write(tmp_path, mapping=f"{MAPPING}\n{line}\n")
    assert message(path).startswith(f"{tmp_path / 'ace_sr_mapping.txt'}:4: {problem}")


def test_the_published_mapping() -> None:
    if not REAL_MAPPING.exists():
        pytest.skip(reason="the published file m2e2/ace_sr_mapping.txt is not there")
    situations = _mapping(REAL_MAPPING)
    assert sum(len(situation.roles) for situation in situations.values()) == 227
    assert {situation.event_type for situation in situations.values()} == set(M2E2_EVENT_TYPES)
    assert {role for situation in situations.values() for role in situation.roles.values()} <= set(M2E2_ROLES)


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"verb": 5}, "field 'verb' of the image is 5: expected a non-empty string"),
        ({"width": "200"}, "field 'width' of the image is '200': expected a number of pixels"),
        ({"height": True}, "field 'height' of the image is True: expected a number of pixels"),
        ({"width": 0}, "role 'agent': the image size is 0 x 100: expected two positive numbers"),
        ({"bb": []}, "field 'bb' of the image is []: expected an object with named fields"),
        ({"bb": {"agent": [1, 2, 3]}}, "role 'agent': box is [1, 2, 3]: expected [x1, y1, x2, y2], or four times -1"),
        ({"bb": {"agent": [1, 2, 3, "4"]}}, "role 'agent': box is [1, 2, 3, '4']: expected"),
        ({"bb": {"agent": [0, 0, 300, 50]}}, "role 'agent': box [0, 0, 300, 50] is outside the image of 200 x 100"),
        ({"bb": {"agent": [9, 0, 9, 50]}}, "role 'agent': box [9, 0, 9, 50] has no area"),
        ({"frames": {}}, "field 'frames' of the image is {}: expected a list"),
        ({"frames": [{}, 5]}, "frame 1 (counted from 0) is 5: expected an object with one noun"),
        ({"frames": [{"agent": 5}]}, "frame 0 (counted from 0) is {'agent': 5}: expected an object with one noun"),
    ],
)
def test_errors_in_an_image_name_file_and_image(tmp_path: Path, fields: dict[str, Any], problem: str) -> None:
    path = write(tmp_path, changed(**fields))
    assert message(path).startswith(f"{path}: arresting_1.jpg: {problem}")


def test_errors_in_the_whole_file(tmp_path: Path) -> None:
    path = write(tmp_path, [1])
    assert message(path) == f"{path}: is [1]: expected an object with one entry per image"
    path = write(tmp_path, {"../x.jpg": {}})
    assert message(path).startswith(f"{path}: ../x.jpg: the name of the image is '../x.jpg': expected a file name")
    assert message(path, regions=tmp_path) == (
        f"{path}: the format 'swig' has no separate region files; leave regions out"
    )
