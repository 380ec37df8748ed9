"""Checks of records and of files: every error of every line, repeated ids."""

import json
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from PIL import Image

from umie.audit.checks import Validation, check_record, validate
from umie.audit.statistics import gather
from umie.data.sounds import save_sound
from umie.data.source import Source
from umie.errors import UmieError
from umie.media import Sound
from umie.records import Argument, Entity, Event, Record, Region, Relation, record_from_json
from umie.records.jsonl import errors_of_line

TEXT = "Ann Lee met Bob"
ANN, LEE, BOB = (0, 3), (4, 7), (12, 15)
SOUND = Record(
    TEXT,
    image="1.jpg",
    regions=(Region((0, 0, 0.5, 1)),),
    entities=(Entity("person", ANN), Entity("person", BOB)),
    relations=(Relation("peer", ANN, BOB), Relation("none", BOB, ANN)),
    events=(Event("meet", (8, 11), (Argument("Entity", ANN), Argument("Entity", regions=(0,)))),),
    id="1",
    labels={"mner": ("person",), "mre": ("peer",), "med": ("meet",), "meae": ("Entity",)},
)


def messages(record, *, errors):
    return [finding.message for finding in check_record(record, images=False) if finding.is_error is errors]


def test_a_valid_record():
    assert list(check_record(SOUND, images=False)) == []


@pytest.mark.parametrize(
    ("record", "message"),
    [
        (Record(TEXT, entities=[Entity("animal", ANN)], labels={"mner": ("person",)}), "mner label 'animal' is not in"),
        (Record(TEXT, relations=[Relation("x", ANN, BOB)], labels={"mre": ("peer",)}), "mre label 'x' is not in"),
        (Record(TEXT, events=[Event("x", ANN)], labels={"med": ("meet",)}), "med label 'x' is not in"),
    ],
)
def test_labels_outside_the_schema_of_the_record_are_errors(record, message):
    (found,) = messages(record, errors=True)
    assert found.startswith(message)


@pytest.mark.parametrize(
    ("record", "message"),
    [
        (Record(TEXT, entities=[Entity("person", (0, 4))]), "entity [0, 4] covers 'Ann ' with surrounding whitespace"),
        (Record(TEXT, relations=[Relation("peer", ANN, (11, 15))]), "relation tail [11, 15] covers ' Bob'"),
        (Record(TEXT, entities=[Entity("person", ANN)] * 2), "duplicate entity {'type': 'person', 'span': (0, 3)"),
        (
            Record(TEXT, entities=[Entity("a", ANN), Entity("b", ANN)]),
            "span [0, 3] has several entity types: a, b",
        ),
        (Record(TEXT, relations=[Relation("peer", ANN, ANN)]), "relation 'peer' has the same span [0, 3]"),
        (
            Record(TEXT, relations=[Relation("none", ANN, BOB), Relation("peer", ANN, BOB)]),
            "pair [0, 3] [12, 15] is both 'none' and peer",
        ),
        (
            Record(TEXT, events=[Event("meet", ANN, [Argument("Place", BOB)] * 2)]),
            "duplicate argument 'Place' of",
        ),
        (Record(TEXT, regions=[Region((0, 0, 1, 1))]), "1 regions without an image"),
        (
            Record(TEXT, image="a", regions=[Region((0, 0, 1, 1))] * 2),
            "duplicate region [0.0, 0.0, 1.0, 1.0]",
        ),
        (Record(TEXT, tasks=["nmer"]), "tasks contains the unknown task 'nmer'"),
        (Record(TEXT, labels={"nmer": ("a",)}), "labels contains the unknown task 'nmer'"),
        (Record(TEXT, labels={"mner": ("a", "a")}), "labels of 'mner' contains 'a' repeatedly"),
        (Record(TEXT, entities=[Entity("person", ANN)], tasks=["mre"]), "annotation for 'mner' is not used"),
    ],
    ids=lambda value: value[:40] if isinstance(value, str) else "",
)
def test_warnings(record, message):
    (found,) = messages(record, errors=False)
    assert found.startswith(message)
    assert messages(record, errors=True) == []


def test_images(tmp_path):
    record = Record(TEXT, image="a.jpg", image_folder=str(tmp_path))
    (finding,) = check_record(record)
    assert finding.is_error
    assert finding.message.startswith(f"image 'a.jpg' does not exist (in {tmp_path})")
    Image.new("RGB", (4, 4)).save(tmp_path / "a.jpg")
    assert list(check_record(record)) == []
    regions = (Region((0, 0, 1, 1)), *[Region((0, 0, 1, 1), image=1)] * 2)
    several = Record(TEXT, "a.jpg", regions, image_folder=str(tmp_path), more_images=("b.jpg", "a.jpg"))
    missing, twice = check_record(several)
    assert missing.message.startswith("image 'b.jpg' does not exist")
    assert twice.message == "duplicate region [0.0, 0.0, 1.0, 1.0] of image 1 (2 times)"
    counted = gather([record, several]).summary()["images"]
    assert {name: counted[name] for name in ("named", "several", "missing")} == {"named": 2, "several": 1, "missing": 1}
    other = Record(TEXT, audio="a.wav", video="a.jpg", image_folder=str(tmp_path))
    (finding,) = check_record(other)
    assert finding.message.startswith(f"sound 'a.wav' does not exist (in {tmp_path})")
    assert list(check_record(other, images=False)) == []
    (tmp_path / "c.jpg").write_bytes(b"x")
    (finding,) = check_record(replace(record, image="c.jpg"))
    assert finding.is_error
    assert finding.message.startswith(f"{tmp_path / 'c.jpg'}: not a readable image (unknown format) (use PNG, ")


def test_files_that_are_no_sound_and_places_outside_of_their_file(tmp_path):
    save_sound(Sound(np.zeros(3_000, np.float32), 1_000), tmp_path / "a.wav")
    Image.new("RGB", (4, 4)).save(tmp_path / "b.wav", format="PNG")
    frames = [Image.new("RGB", (4, 4), color) for color in ("red", "blue")]
    frames[0].save(tmp_path / "a.png", save_all=True, append_images=frames[1:], duration=500)
    box = (0, 0, 1, 1)
    tracks = [{"times": [0.5, 0.9], "boxes": [box, box]}, {"times": [0, 1], "boxes": [None, box]}]
    lines = [
        {"text": TEXT, "audio": "a.wav", "segments": [{"interval": [0, 3.05]}]},
        {"text": TEXT, "audio": "a.wav", "segments": [{"interval": [2, 4]}, {"interval": [3, 4]}]},
        {"text": TEXT, "audio": "b.wav", "segments": [{"interval": [9, 10]}]},
        {"text": TEXT, "video": "a.png", "tracks": tracks},
        {"text": TEXT, "audio": "b.wav"},
    ]
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    found = []
    validate(Source(path), lambda place, finding: found.append((place.removeprefix(f"{path}:"), *finding)))
    no_sound = f"{tmp_path / 'b.wav'}: not a readable sound"
    assert [(line, is_error, message.split(" (")[0]) for line, is_error, message in found] == [
        ("2", False, "sound 'a.wav': segments[0] ends at 4.00 seconds, after its end, 3.00 seconds"),
        ("2", True, "sound 'a.wav': segment [3.0, 4.0] is after the end of the sound, 3.00 seconds"),
        ("3", True, no_sound),
        ("4", True, "video 'a.png': a track from second 1.00 is after the end of the video, 1.00 seconds"),
        ("5", True, no_sound),
    ]


BAD_LINE = {
    "text": "Ann met",
    "regions": [{"box": [0, 0, 1, 1]}, {"box": [0, 0, 640, 480]}],
    "entities": [{"type": "person", "span": [0, 99]}, {"type": "", "span": [0, 3]}, {"type": "x", "span": [3, 1]}],
    "relations": [{"type": "peer", "head": [0, 3], "tail": [50, 60]}],
    "events": [{"type": "e", "arguments": [{"role": "a", "region": 1}, {"role": "b", "region": 2}]}],
    "tasks": "mner",
    "labels": {"mner": 5},
    "source": 7,
    "entites": [],
}


def test_every_error_of_a_line():
    found = [str(error) for error in errors_of_line(json.dumps(BAD_LINE))]
    expected = [
        "Unknown record key 'entites'",
        "tasks is 'mner': expected a list",
        "labels of 'mner' is 5",
        "source is 7",
        "box [0, 0, 640, 480] is not inside",
        "entity has type ''",
        "entity is [3, 1]: expected 0 <= start",
        "argument 'b' refers to region 2, but the record has 2 regions",
        "span [0, 99] is not inside",
        "span [50, 60] is not inside",
    ]
    assert len(found) == len(expected)
    for start in expected:
        assert any(message.startswith(start) for message in found), start


SCALARS = st.none() | st.integers(-2, 9) | st.floats() | st.text(max_size=3) | st.booleans()
SPANS = st.lists(st.integers(-1, 8), min_size=2, max_size=2) | SCALARS
ITEMS = st.lists(
    st.fixed_dictionaries(
        {},
        optional={
            "type": SCALARS,
            "span": SPANS,
            "text": SCALARS,
            "head": SPANS,
            "tail": SPANS,
            "trigger": SPANS,
            "box": st.lists(st.floats(0, 1), max_size=4),
            "arguments": st.lists(
                st.fixed_dictionaries({"role": SCALARS}, optional={"span": SPANS, "region": SCALARS})
            ),
        },
    )
    | SCALARS,
    max_size=3,
)
LINES = st.fixed_dictionaries(
    {"text": st.sampled_from(["Ann met", "", "\ud800", "🙂", 5])},
    optional={
        "image": SCALARS,
        "regions": ITEMS | SCALARS,
        "entities": ITEMS | SCALARS,
        "relations": ITEMS | SCALARS,
        "events": ITEMS | SCALARS,
        "tasks": st.lists(SCALARS) | SCALARS,
        "labels": st.dictionaries(st.text(max_size=2), st.lists(SCALARS) | SCALARS) | SCALARS,
        "source": SCALARS,
        "id": SCALARS,
        "x": SCALARS,
    },
).map(json.dumps)


@given(LINES | st.text(max_size=20))
def test_errors_of_a_line_are_those_that_reading_finds(line):
    errors = errors_of_line(line)
    try:
        record_from_json(line)
    except UmieError as error:
        # errors of spans are reported after those of items
        assert errors
        assert str(error) in [str(found) for found in errors]
    else:
        assert errors == []


def test_a_file(tmp_path):
    path = tmp_path / "a.jsonl"
    lines = [
        b'{"text": "Ann met", "id": "1"}',
        b"",
        json.dumps(BAD_LINE).encode(),
        b'{"text": "\xff"}',
        b"[]",
        b'{"text": "Ann met", "id": "1", "entities": [{"type": "x", "span": [0, 4]}]}',
        b'{"text": "Bob", "image": "absent.jpg"}',
    ]
    path.write_bytes(b"\n".join(lines))
    found = []
    seen = []
    result = validate(
        Source(path), lambda place, finding: found.append((place, finding)), progress=lambda: seen.append(1)
    )
    assert result == Validation(records=3, errors=10 + 1 + 1 + 1 + 1, warnings=1)
    assert len(seen) == 3
    shown = [f"{place}: {finding.message}" if place else finding.message for place, finding in found]
    assert shown[10].startswith(f"{path}:4: not UTF-8 text")
    assert shown[11].startswith(f"{path}:5: record is []")
    assert shown[12].startswith(f"{path}:6: entity [0, 4] covers 'Ann '")
    assert shown[13].startswith(f"{path}:6: id '1' is already used at {path}:1")
    assert shown[14].startswith(f"{path}:7: image 'absent.jpg' does not exist")
    assert validate(Source(path), lambda *_: None, images=False).errors == result.errors - 1


@given(st.binary(max_size=60) | st.lists(LINES.map(str.encode), max_size=4).map(b"\n".join))
def test_no_file_is_too_broken_to_be_checked(content):
    assume(not content.startswith((b"PK", b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"version https")))  # not read at all
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "a.jsonl")
        path.write_bytes(content)
        found = []
        result = validate(Source(path), lambda place, finding: found.append(place + finding.message))
        assert result.errors + result.warnings == len(found)
        assert all(message.startswith(f"{path}:") for message in found)


def test_a_file_of_another_format(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("IMGID:1\nAnn\tB-PER\n\nIMGID:1\nBob\tB-PER\n\nIMGID:2\nBob\tB-XYZ\n")
    found = []
    result = validate(Source(path, "twitter"), lambda place, finding: found.append(f"{place} {finding.message}"))
    assert result == Validation(records=2, errors=1)
    assert f"{path}:8" in found[0]
    assert "B-XYZ" in found[0]
